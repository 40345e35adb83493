"""Which Python sources are installed on this machine, and by whom: the standard library and distributions."""

from __future__ import annotations

import os
import string
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

import harness
from harness.libraries import VENDORED, installed

LARGEST = 1_000_000
"""Bytes of a file; what is larger was not written by hand."""
NOT_STANDARD = frozenset({"site-packages", "dist-packages", "__pycache__"})
MADE = ("__editable__", "_sysconfigdata")
"""How names of sources begin that a build made, with this machine's paths in them."""
LETTERS = (string.ascii_letters + string.whitespace + "_").encode() + bytes(range(128, 256))
TABLE_MARKS = 0.45
"""Share of digits and marks from which a file is a table. Code has 0.15 to 0.35; 1 % of all text is above."""
LONG_LINE = 300


@dataclass(frozen=True, slots=True)
class Script:
    """A Python source file."""

    name: str
    """Its path below the folder it is installed in, with `/`."""
    path: Path
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The standard library, or a distribution, with its sources in the order of their names."""

    name: str
    """Normalised; empty for the standard library."""
    version: str
    scripts: tuple[Script, ...]

    @property
    def size(self) -> int:
        return sum(script.size for script in self.scripts)


def origins(first: Iterable[str], path: Sequence[str] | None = None, standard: Path | None = None) -> list[Origin]:
    """The standard library, then the distributions named in `first`, then all others, by name.

    A file that two of them claim belongs to the earlier. The harness itself is left out, as are links to
    files seen before, vendored copies, and what lies in archives. `path`: folders of distributions, by
    default `sys.path`; `standard`: folder of the standard library, by default this interpreter's.
    """
    seen: set[Path] = set()
    standard = standard or Path(sysconfig.get_path("stdlib"))
    version = ".".join(map(str, sys.version_info[:3]))
    found = [Origin("", version, _taken(_below(standard, standard, NOT_STANDARD), seen))]
    own = os.path.join(os.path.dirname(os.path.abspath(harness.__file__)), "")
    known, earlier = installed(path), set(first)
    for name in sorted(known, key=lambda name: (name not in earlier, name)):
        files = list(_files(known[name]))
        if not any(os.path.abspath(place).startswith(own) for _, place in files):
            found.append(Origin(name, known[name].version or "", _taken(files, seen)))
    return found


def read(script: Script) -> str | None:
    """Its text with its own line ends, or None if it is not UTF-8, a table, generated, or gone."""
    try:
        content = script.path.read_bytes()
        return None if is_table(content) else content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def is_table(content: bytes) -> bool:
    """Whether a source is mainly numbers and marks, or mainly lines that no person writes."""
    if len(content) < 2000:
        return False
    marks = len(content.translate(None, LETTERS))
    long = sum(len(line) for line in content.splitlines() if len(line) > LONG_LINE)
    return marks > TABLE_MARKS * len(content) or 2 * long > len(content)


def _files(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Name and place of what a distribution installed, by its RECORD, or else by its top-level names."""
    if distribution.files is not None:
        for file in distribution.files:
            place = distribution.locate_file(file)
            if isinstance(place, Path) and ".." not in file.parts:  # not in an archive, nor a command
                yield file.as_posix(), place
        return
    root = distribution.locate_file("")
    if isinstance(root, Path):
        for name in (distribution.read_text("top_level.txt") or "").split():
            yield f"{name}.py", root / f"{name}.py"
            yield from _below(root / name, root, frozenset({"__pycache__"}))


def _below(folder: Path, root: Path, skipped: frozenset[str]) -> Iterator[tuple[str, Path]]:
    for place, folders, files in os.walk(folder):  # does not follow links to folders
        folders[:] = [name for name in folders if name not in skipped]
        for name in files:
            path = Path(place, name)
            yield path.relative_to(root).as_posix(), path


def _taken(files: Iterable[tuple[str, Path]], seen: set[Path]) -> tuple[Script, ...]:
    """Those that are sources of a sensible size and nobody else's, by name."""
    scripts = []
    for name, path in sorted(files):
        if not name.endswith(".py") or Path(name).name.startswith(MADE) or VENDORED & set(name.split("/")):
            continue
        try:
            real = path.resolve(strict=True)
            size = real.stat().st_size
        except (OSError, RuntimeError):  # a link to nothing, or to itself
            continue
        if real in seen or not real.is_file() or not 0 < size <= LARGEST:
            continue
        seen.add(real)
        scripts.append(Script(name, path, size))
    return tuple(scripts)
