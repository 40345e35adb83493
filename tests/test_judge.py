"""The judge: pure, so every property is tested on numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge import gain, judge, spread
from harness.types import Verdict

PARENT = {0: 1.75, 1: 1.76}
NOISE = 0.01
scores = st.floats(0.5, 8.0)


def test_the_noise_is_the_spread_of_the_baseline_over_its_seeds() -> None:
    assert spread({0: 1.75, 1: 1.77, 2: 1.74}) == pytest.approx(0.03)


def test_the_noise_of_one_seed_is_unknown() -> None:
    with pytest.raises(ValueError, match="fewer than two"):
        spread({0: 1.75})


def test_only_shared_seeds_are_compared() -> None:
    assert gain({0: 1.70, 5: 9.9}, {0: 1.75, 1: 0.1}) == pytest.approx(0.05)
    assert gain({5: 1.0}, {0: 1.0}) is None


def test_a_loser_is_discarded_after_one_trial() -> None:
    assert judge({0: 1.751}, PARENT, None, 2).verdict is Verdict.DISCARD


def test_a_tie_is_no_win() -> None:
    assert judge({0: 1.75}, PARENT, None, 2).verdict is Verdict.DISCARD


def test_a_winner_of_one_seed_is_trained_again() -> None:
    assert judge({0: 1.5}, PARENT, NOISE, 2).verdict is None


def test_nothing_is_kept_before_the_noise_is_known() -> None:
    assert judge({0: 1.5, 1: 1.5}, PARENT, None, 2).verdict is None


def test_a_gain_above_the_noise_is_kept() -> None:
    judged = judge({0: 1.73, 1: 1.74}, PARENT, NOISE, 2)
    assert judged.verdict is Verdict.KEEP
    assert judged.gain == pytest.approx(0.02)


def test_a_gain_within_the_noise_is_discarded() -> None:
    assert judge({0: 1.745, 1: 1.755}, PARENT, NOISE, 2).verdict is Verdict.DISCARD


def test_a_candidate_that_shares_no_seed_with_its_parent_is_decided_all_the_same() -> None:
    assert judge({0: 1.7, 1: 1.7}, {}, NOISE, 2).verdict is Verdict.DISCARD


def test_a_seed_that_failed_for_the_parent_delays_no_decision() -> None:
    assert judge({0: 1.7, 1: 1.7}, {0: 1.75}, NOISE, 2).verdict is Verdict.KEEP


@given(scores, scores, scores, scores, st.floats(-0.4, 0.4))
def test_a_shift_of_all_scores_changes_no_verdict(a: float, b: float, c: float, d: float, shift: float) -> None:
    here = judge({0: a, 1: b}, {0: c, 1: d}, NOISE, 2)
    if here.gain is None or abs(here.gain) < 1e-9 or abs(here.gain - NOISE) < 1e-9:
        return  # rounding may decide a tie
    there = judge({0: a + shift, 1: b + shift}, {0: c + shift, 1: d + shift}, NOISE, 2)
    assert there.verdict is here.verdict


@given(scores, scores, st.floats(0, 2))
def test_a_lower_score_never_loses_a_keep(first: float, second: float, lower: float) -> None:
    if judge({0: first, 1: second}, PARENT, NOISE, 2).verdict is Verdict.KEEP:
        assert judge({0: first - lower, 1: second}, PARENT, NOISE, 2).verdict is Verdict.KEEP


def test_a_score_that_is_no_number_never_wins() -> None:
    assert judge({0: float("nan")}, PARENT, NOISE, 1).verdict is Verdict.DISCARD
