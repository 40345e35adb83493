"""Ranges of hyperparameters: what stands between the brackets of a comment."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

Value = bool | int | float | str
SCALES = ("gpu", "cpu")
FORMS = "Write a range as [0.005..0.2 log], [4..24 int], [A | B | C] or [gpu 4..24 int, cpu 1..6 int]."


class BadRange(ValueError):
    """What is wrong with a range; the reader of the file adds name and line."""


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Moved in its logarithm."""
    integer: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or isinstance(value, int))

    def __str__(self) -> str:
        words = " int" * self.integer + " log" * self.log
        return f"[{self.low:.12g}..{self.high:.12g}{words}]"

    def at(self, position: float) -> int | float:
        """The value at a position in [0, 1], as it would be written in the file."""
        position = min(1.0, max(0.0, position))
        if self.log:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + (self.high - self.low) * position
        value = min(self.high, max(self.low, round(value) if self.integer else short(value)))
        return int(value) if self.integer else float(value)

    def position(self, value: float) -> float:
        """Where a value lies, in [0, 1]; the inverse of `at`."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values, all of the type of the hyperparameter."""

    options: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)

    def __str__(self) -> str:
        return f"[{' | '.join(map(str, self.options))}]"


def short(value: float) -> float:
    """The number to four significant digits: how search writes a float."""
    return float(f"{value:.4g}")


def reads_like_range(bracket: str) -> bool:
    """Whether the text of a bracket is meant as a range, well written or not.

    It is if it begins with the name of a scale, holds `..` or `|`, or ends with `int` or `log`. So `[B, T]`,
    `[0, 1]` and `[2]` are prose, while `[4..]`, `[0.1, 0.8 log]` and `[0.1..0.8 lgo]` are ranges gone wrong.
    """
    words = bracket.replace(",", " ").split()
    if not words:
        return False
    return words[0] in SCALES or words[-1] in ("int", "log") or ".." in bracket or "|" in bracket


def parse_range(bracket: str, scale: str, value: Value) -> Range | Choice | None:
    """The range that a bracket gives to one scale; None if it leaves that scale out.

    `value` is the current value: options take its type, and it must lie inside. All parts are read, so that
    an error in the other scale's part does not wait for a machine of that scale. Raises `BadRange`.
    """
    parts = _by_scale(bracket)
    if parts is None:
        return _inside(_one(bracket, value), value)
    for other, part in parts.items():
        if other != scale:
            _one(part, None)
    return _inside(_one(parts[scale], value), value) if scale in parts else None


def _by_scale(bracket: str) -> dict[str, str] | None:
    """Scale to text, for `gpu 4..24 int, cpu 1..6 int`; None for a range that holds for every scale."""
    if not bracket.split() or bracket.split()[0] not in SCALES:
        return None
    parts: dict[str, str] = {}
    for part in bracket.split(","):
        scale, _, rest = part.strip().partition(" ")
        if scale not in SCALES:
            raise BadRange(f"{part.strip()!r} does not begin with gpu or cpu")
        if scale in parts:
            raise BadRange(f"{scale} has two ranges")
        parts[scale] = rest.strip()
    return parts


def _one(text: str, value: Value | None) -> Range | Choice:
    """One range; with value None its form alone is looked at."""
    if "|" in text:
        return _choice([option.strip() for option in text.split("|")], value)
    low, dots, rest = text.partition("..")
    words = rest.split()
    if not dots or not words:
        raise BadRange(f"{text!r} is no range")
    unknown = [word for word in words[1:] if word not in ("int", "log")]
    if unknown or len(set(words[1:])) < len(words[1:]):
        raise BadRange(f"{' '.join(words[1:])!r} may hold int and log, each once")
    return _numeric(low.strip(), words[0], "log" in words, "int" in words, value)


def _numeric(low: str, high: str, log: bool, integer: bool, value: Value | None) -> Range:
    bounds = [_number(low), _number(high)]
    whole = all(isinstance(bound, int) for bound in bounds)
    if integer and not whole:
        raise BadRange("an int range needs whole bounds")
    if bounds[0] >= bounds[1]:
        raise BadRange(f"low {low} is not below high {high}")
    if log and bounds[0] <= 0:
        raise BadRange(f"a log range must begin above 0, not at {low}")
    if value is not None:
        if isinstance(value, bool | str):
            raise BadRange(f"{value!r} is no number")
        if integer and not isinstance(value, int):
            raise BadRange(f"{value!r} is no whole number; write it without a point, or leave out int")
        if isinstance(value, int) and whole and not integer:
            raise BadRange(f"{value!r} looks like a whole number; say int, or write {value}.0")
    return Range(bounds[0], bounds[1], log, integer)


def _choice(options: list[str], value: Value | None) -> Choice:
    if not all(options):
        raise BadRange("an option is empty")
    if len(set(options)) < len(options):
        raise BadRange("an option stands twice")
    return Choice(tuple(_option(option, value) for option in options))


def _option(text: str, value: Value | None) -> Value:
    """An option in the type of the hyperparameter's value."""
    if value is None or isinstance(value, str):
        return text.strip("\"'")
    if isinstance(value, bool):
        if text not in ("True", "False"):
            raise BadRange(f"{text!r} is neither True nor False")
        return text == "True"
    number = _number(text)
    if isinstance(value, int) and not isinstance(number, int):
        raise BadRange(f"{text!r} is no whole number, as {value} is")
    return number if isinstance(value, int) else float(number)


def _inside(limits: Range | Choice, value: Value) -> Range | Choice:
    if value not in limits:
        raise BadRange(f"the current value {value!r} lies outside {limits}")
    return limits


def _number(text: str) -> int | float:
    """A number as Python writes it. Raises `BadRange` for anything else."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise BadRange(f"{text!r} is no number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRange(f"{text!r} is no number")
    return value
