"""How much work after the end of its budget costs a trial its score."""

from __future__ import annotations

import math

import pytest

from harness.ruler import parse_budget
from harness.runners.limits import Feed, Limits

CASES = [
    # budget, what its last step may overrun, what it may use afterwards
    ("cpu:1", 0.5, 1.5),
    ("cpu:30", 1.5, 1.5),
    ("cpu:300", 15.0, 6.0),
    ("wall:20", 2.0, 10.0),
    ("wall:300", 15.0, 10.0),
    ("wall:3600", 180.0, 72.0),
]


def trial(budget: str, late: float, afterwards: float = 0.0) -> str:
    """What is said of a trial that ended so many seconds of its clock after its budget."""
    parsed = parse_budget(budget)
    feed = Feed(started=True, ended=True, stopped=True, seconds=parsed.amount + late, afterwards=afterwards)
    return feed.overrun(parsed)


@pytest.mark.parametrize(("budget", "step", "afterwards"), CASES)
def test_the_last_step_may_overrun_the_budget_so_far_and_no_further(
    budget: str, step: float, afterwards: float
) -> None:
    assert trial(budget, late=step - 0.01) == ""
    said = trial(budget, late=step + 0.01)
    assert f"for {step + 0.01:.2f} s" in said
    assert f"{step:g} s are allowed" in said
    assert "make its steps smaller" in said


@pytest.mark.parametrize(("budget", "step", "afterwards"), CASES)
def test_saving_may_take_so_long_and_no_longer(budget: str, step: float, afterwards: float) -> None:
    assert trial(budget, late=0.0, afterwards=afterwards - 0.01) == ""
    said = trial(budget, late=0.0, afterwards=afterwards + 0.01)
    assert "after it knew" in said
    assert f"for {afterwards + 0.01:.2f} s" in said
    assert f"{afterwards:g} s are allowed" in said


def test_both_allowances_may_be_used() -> None:
    assert trial("cpu:30", late=1.4, afterwards=1.4) == ""


def test_a_steps_budget_has_no_clock_to_overrun() -> None:
    assert trial("steps:6", late=1e6, afterwards=1e6) == ""


def test_model_servers_may_work_as_the_models_own_speed_in_training_lets_expect() -> None:
    limits = Limits.of(parse_budget("cpu:30"), "cpu")
    fast, slow = Feed(seconds=30.0, tokens=1_500_000), Feed(seconds=30.0, tokens=150_000)
    assert limits.servers(fast, 100_000) == pytest.approx(6 + 0.7 * 2)
    assert limits.servers(slow, 100_000) == pytest.approx(6 + 0.7 * 20)
    assert limits.servers(Feed(), 100_000) == 6


def test_a_budget_of_steps_bounds_no_work_of_model_servers() -> None:
    assert Limits.of(parse_budget("steps:6"), "cpu").servers(Feed(tokens=100), 100_000) == math.inf
