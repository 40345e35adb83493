"""How figures are written."""

from __future__ import annotations

import pytest

from harness.figures import amount, duration, figure, megabytes, signed


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (812, "812"), (9_999, "9,999"), (54_600, "54.6k"), (999_949, "999.9k"), (1_720_000, "1.72M")],
)
def test_counts_are_short(count: float | None, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-1, "0 s"),
        (36.6, "37 s"),
        (59.7, "1.0 min"),
        (305, "5.0 min"),
        (599, "9.9 min"),
        (720, "12 min"),
        (25_500, "7 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations_are_in_words(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("3", ""), (1.72034, "1.7203"), (54_600.0, "54600.0000"), (1e300, "1e+300"), (float("nan"), "nan")],
)
def test_figures_are_plain_numbers_as_long_as_they_fit(value: object, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(("gain", "text"), [(None, ""), (0.01012, "+0.0101"), (-0.01, "-0.0100"), (0.0, "+0.0000")])
def test_gains_have_their_sign(gain: float | None, text: str) -> None:
    assert signed(gain) == text


@pytest.mark.parametrize(("size", "text"), [(None, ""), (900.4, "900 MB"), (1536.0, "1.5 GB")])
def test_sizes_are_in_the_unit_that_fits(size: float | None, text: str) -> None:
    assert megabytes(size) == text
