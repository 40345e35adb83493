"""How figures are written wherever a person reads them. What is not known is an empty text."""

from __future__ import annotations

import math


def figure(value: object, digits: int = 4, sign: str = "", most: float = 1e9) -> str:
    """`1.7203`; `nan` and `inf` as they are, `1.23e+05` from `most` on. What is no number is not known."""
    if not isinstance(value, int | float):
        return ""
    if not math.isfinite(value) or abs(value) >= most:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}.{digits}f}"


def signed(gain: float | None) -> str:
    """Bits per byte with their sign: `+0.0101`."""
    return figure(gain, sign="+")


def amount(count: float | None) -> str:
    """A count in at most six characters: `812`, `54.6k`, `1.72M`."""
    if count is None or not math.isfinite(count):
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            scaled = count / (1e3 if unit == "k" else size)
            return f"{scaled:.1f}{unit}" if scaled >= 10 else f"{scaled:.2f}{unit}"
    return f"{count:,.0f}"


def megabytes(size: float | None) -> str:
    """A size that is given in MiB: `900 MB`, `1.5 GB`."""
    if size is None:
        return ""
    return f"{size / 1024:.1f} GB" if size >= 1024 else f"{size:.0f} MB"


def duration(seconds: float | None) -> str:
    """`48 s`, `5.1 min`, `12 min`, `7 h 05 min`."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 6 / 10:.1f} min"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60:02d} min"
