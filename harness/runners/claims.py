"""What a trainer logged of itself: read with care, shown, and never judged."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from harness.text import tail_bytes


def last_claims(path: Path, size: int) -> dict[str, float]:
    """The numbers of a trainer's log, the latest of each name, read from its last `size` bytes; {} if unreadable."""
    claims: dict[str, float] = {}
    try:
        lines = tail_bytes(path, size).splitlines()
    except OSError:
        return claims
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # the first may be cut, any may be nonsense
            claims.update(_numbers(json.loads(line)))
    return claims


def _numbers(said: Any) -> dict[str, float]:
    if not isinstance(said, dict) or len(said) > 64:
        return {}
    numbers = {name[:40]: value for name, value in said.items() if type(value) in (int, float)}
    return {name: float(value) for name, value in numbers.items() if abs(value) < 1e300 and math.isfinite(value)}
