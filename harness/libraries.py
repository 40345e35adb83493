"""Which installed distributions training needs: a sandbox may show them, and no held-out text is from them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from itertools import pairwise

VENDORED = frozenset({"_vendor", "_vendored", "vendor", "vendored", "extern", "third_party"})
"""Folders with copies of other distributions, which may stand in another split."""
ROOTS = ("torch", "numpy", "safetensors")
"""What `train.py` and `prepare.py` import, besides the standard library."""


def training_distributions(path: Sequence[str] | None = None, roots: Iterable[str] = ROOTS) -> frozenset[str]:
    """Normalised names of the installed distributions that `roots` need, themselves and all below included.

    Markers are evaluated for this interpreter. Optional extras are left out, but those that a needed
    distribution asks of another (`cuda-toolkit[cublas]`) are followed. What is not installed is not named.
    `path`: folders to look in, by default `sys.path`.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    known = installed(path)
    waiting = [(normalise(name), "") for name in roots]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = item = waiting.pop()
        if item in seen or name not in known:
            continue
        seen.add(item)
        for line in known[name].requires or []:
            try:
                need = Requirement(line)
            except InvalidRequirement:  # metadata of old build tools; nothing can be read from it
                continue
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(normalise(need.name), wanted) for wanted in ("", *need.extras)]
    return frozenset(name for name, _ in seen)


def shown_distributions(path: Sequence[str] | None = None) -> frozenset[str]:
    """Those whose text a sandbox shows: what training needs, and what that holds vendored copies of."""
    known, needed = installed(path), training_distributions(path)
    parts = [name.split("/") for each in needed for name in recorded(known[each])]
    copied = {after.removesuffix(".py") for way in parts for at, after in pairwise(way) if at in VENDORED}
    return needed | {name for name, each in known.items() if copied & (tops(each) | {name})}


def recorded(distribution: Distribution) -> list[str]:
    """Names of what a distribution installed, below the folder it lies in, with `/`.

    From the text of its RECORD: to parse torch's as a table takes longer than all else that is asked of it.
    """
    text = distribution.read_text("RECORD")
    if text is not None:
        names = [line.partition(",")[0].strip('"') for line in text.splitlines()]
    else:
        names = [file.as_posix() for file in distribution.files or ()]
        names += (distribution.read_text("top_level.txt") or "").split()
    return [name for name in names if name and not name.startswith(("..", "/"))]


def tops(distribution: Distribution, depth: int = 1) -> set[str]:
    """The first `depth` parts of those names."""
    return {"/".join(name.split("/")[:depth]) for name in recorded(distribution)} - {"__pycache__"}


def installed(path: Sequence[str] | None = None) -> Mapping[str, Distribution]:
    """Installed distributions by normalised name, in the order of names; of two, the one that is imported."""
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=list(sys.path if path is None else path)):
        # A folder that an interrupted installation left behind has no name.
        name = distribution.metadata["Name"] if distribution.metadata else None
        if name:
            found.setdefault(normalise(name), distribution)
    return dict(sorted(found.items()))


def normalise(name: str) -> str:
    """One spelling for a distribution's name: `Typing_Extensions` is `typing-extensions` (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
