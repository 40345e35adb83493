"""Values written back into a text, byte-exact elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.errors import ContractError
from harness.hyperparameters.constants import Hyperparameter, Span, read, spans
from harness.hyperparameters.ranges import Choice, Range, Value, short
from harness.hyperparameters.text import fingerprint


def edit(source: str, scale: str, values: Mapping[str, Value]) -> str:
    """The text with other values at one scale; every other byte stays.

    A float is written with at most four significant digits unless it is a bound of its range or an option, an
    int with underscores if the old one had them. A value equal to the present one leaves its literal alone,
    and a plain literal (no `pick`) holds for every scale. Raises `ContractError` for an unknown name, a value
    outside its range, or one of another type.
    """
    present = {span.name: span for span in spans(source, scale)}
    known = {item.name: item for item in read(source, scale)}
    text = source.encode()
    changes: list[tuple[Span, str]] = []
    for name, value in values.items():
        if name not in present:
            raise ContractError(f"train.py has no hyperparameter {name}", f"It has {', '.join(present) or 'none'}.")
        span = present[name]
        before = known[name]
        if type(value) is not type(before.value) or value != before.value:
            changes.append((span, _written(before, value, text[span.start : span.end].decode())))
    return _spliced(text, changes)


def skeleton(source: str, scale: str) -> str:
    """A hash of the code apart from the values of its hyperparameters at a scale.

    Two texts with the same skeleton differ in nothing else. Raises `ContractError` as `read` does.
    """
    return fingerprint(_spliced(source.encode(), [(span, "0") for span in spans(source, scale)]))


def _spliced(text: bytes, changes: list[tuple[Span, str]]) -> str:
    for span, new in sorted(changes, key=lambda change: change[0].start, reverse=True):
        text = text[: span.start] + new.encode() + text[span.end :]
    return text.decode()


def _written(present: Hyperparameter, value: Value, old: str) -> str:
    """A value as Python, in the manner of the literal that it replaces."""
    limits = present.range
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(present, value)
    if isinstance(present.value, float) or (isinstance(limits, Range) and not limits.integer):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refused(present, value)
        value = _short_inside(float(value), limits)
    if limits is not None and value not in limits:
        raise _refused(present, value)
    if isinstance(value, float):
        return repr(value)
    if type(value) is not type(present.value):
        raise _refused(present, value)
    if isinstance(value, str):
        return repr(value) if old.startswith("'") or '"' in value or not value.isprintable() else f'"{value}"'
    return f"{value:_}" if "_" in old and not isinstance(value, bool) else repr(value)


def _short_inside(value: float, limits: Range | Choice | None) -> float:
    """Four significant digits, unless that would leave the range or miss an option."""
    if isinstance(limits, Choice) or (isinstance(limits, Range) and value in (limits.low, limits.high)):
        return value
    if limits is not None and value in limits:
        return min(limits.high, max(limits.low, short(value)))
    return short(value)


def _refused(present: Hyperparameter, value: Value) -> ContractError:
    limits = f" {present.range}" if present.range else ""
    return ContractError(
        f"{present.name} cannot be {value!r}", f"It is {present.value!r}; give a value of its kind{limits}."
    )
