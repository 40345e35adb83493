"""What of the file system an untrusted process is shown: an allowlist, the same for every level.

The system's programs and libraries, this interpreter, and of the installed distributions those that training
needs. No home, no checkout, no ledger, no cache; and no text of a corpus (`corpora.see_that_nothing_is_shown`).
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import SandboxError
from harness.libraries import installed, tops, training_distributions

SYSTEM = (
    *(f"/usr/{name}" for name in ("bin", "lib", "lib32", "lib64", "libexec", "include")),
    *(f"/usr/local/{name}" for name in ("lib", "cuda", "nvidia")),
    *(f"/etc/{name}" for name in ("ld.so.cache", "alternatives")),
)
"""Programs, libraries, headers for compilers, and how they are found."""
DRIVER = "/sys/module/nvidia"
ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
PACKAGES = ("site-packages", "dist-packages")
PACKAGE = re.compile(f"/(?:{'|'.join(PACKAGES)})/(.+)")
WHEELS = "ensurepip"
"""The standard library's copy of pip, whose text may be in any split."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A view without anything to hide."""

    read: tuple[str, ...]
    listed: tuple[str, ...]
    """Folders of which the names are shown too: whoever imports must see what there is."""
    packages: Mapping[str, str]
    """What is shown of installed distributions, by the names below their folder. That one cannot be listed, since
    what is seen there and cannot be opened breaks imports that are optional."""


@dataclass(frozen=True, slots=True)
class View:
    """Paths that are shown, under their own names, for reading."""

    read: tuple[str, ...]
    """Files and folders; a later one may lie in a folder that is `hidden`."""
    hidden: tuple[str, ...] = ()
    """Folders below those that are shown empty."""
    links: tuple[tuple[str, str], ...] = ()
    """Symbolic links of the root, each with its target: `("usr/lib", "/lib")`."""

    def shows(self, path: Path) -> bool:
        """Whether a process can read what lies at `path`: the nearest of what is shown and hidden above it decides."""
        real = Path(os.path.realpath(path))
        shown = {Path(os.path.realpath(name)) for name in self.read}
        nearest = next((above for above in (real, *real.parents) if above in shown or str(above) in self.hidden), None)
        return nearest in shown

    def shows_part(self, path: Path) -> bool:
        """Whether it can read that, or anything below it."""
        real = Path(os.path.realpath(path))
        return self.shows(path) or any(real in Path(os.path.realpath(name)).parents for name in self.read)

    def with_files(self, files: Iterable[str | Path]) -> View:
        """The same, with some files more."""
        return replace(self, read=(*self.read, *map(str, files)))

    def protect(self, places: Iterable[Path], texts: Iterable[Path]) -> None:
        """Raise `SandboxError` if code under test could read one of `places`, or any part of `texts`.

        A checkout may well hold the environment of this Python, of which a part is shown.
        """
        exposed = [path for path in places if self.shows(path)] + [path for path in texts if self.shows_part(path)]
        for path in exposed:
            raise SandboxError(
                f"{path} lies where code under test can read it: among the programs and libraries it is shown.",
                "Move it to a folder of your home, or of any other disk.",
            )

    def pieces(self) -> Pieces:
        """The same for a mechanism that cannot hide: folders that hold hidden ones are given by their parts."""
        read: list[str] = []
        listed: list[str] = []
        waiting = [path for path in self.read if os.path.exists(path)]
        for path in waiting:
            if not any(inside(hidden, [path]) for hidden in self.hidden):
                read.append(path)
            else:
                listed.append(path)
                waiting += sorted(entry.path for entry in os.scandir(path) if entry.path not in self.hidden)
        found = (PACKAGE.search(path) for path in self.read)
        return Pieces(tuple(read), tuple(listed), {match[1]: match.string for match in found if match})


def for_training(environ: Mapping[str, str]) -> View:
    """What trainers and model servers are shown on this machine. `environ` is ours: where CUDA lies."""
    base = Path(sys.base_prefix)
    standard = Path(sysconfig.get_path("stdlib"))
    # Where libraries look for cores and memory; CUDA's look for buses and much else.
    hardware = "/sys" if os.path.exists(DRIVER) else "/sys/devices/system"
    wanted = [*SYSTEM, hardware, *_interpreter(), standard, base / "include", *_libpython(base)]
    wanted += [environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)]
    named = [path for path in dict.fromkeys(map(str, wanted)) if os.path.exists(path)]
    # What a link of the interpreter's leads to is named as well; a folder is shown under the name of its link.
    links = [path for path in named if os.path.islink(path) and not os.path.isdir(path)]
    links += [path for path in ROOT_LINKS if os.path.islink(path)]
    shown = _outermost(path for path in named if path not in links)
    return View(
        read=(*shown, *sorted(map(str, _distributions()))),
        hidden=tuple(sorted(_hidden(shown))),
        links=tuple((os.readlink(link), link) for link in links if not inside(link, shown)),
    )


def _interpreter() -> Iterator[Path]:
    """This interpreter by each of its names, and what says where its libraries are."""
    path = Path(sys.executable)
    yield path
    while path.is_symlink():
        path = path.parent / os.readlink(path)
        yield path
    yield Path(os.path.realpath(sys.executable))
    yield Path(sys.prefix) / "pyvenv.cfg"


def _libpython(base: Path) -> Iterable[Path]:
    return (base / "lib").glob("libpython*") if base != Path("/usr") else ()


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie below another."""
    paths = list(paths)
    return [path for path in paths if not inside(path, paths)]


def inside(path: str, folders: Iterable[str]) -> bool:
    """Whether it lies below one of them."""
    return any(path.startswith(folder + "/") for folder in folders)


def _hidden(shown: Iterable[str]) -> Iterator[str]:
    """Folders of installed packages below what is shown; what training needs of them is shown one by one."""
    for top in shown:
        for pattern in (*PACKAGES, WHEELS):
            for depth in ("", "*/", "*/*/"):
                yield from (str(path) for path in Path(top).glob(depth + pattern) if path.is_dir())


def _distributions() -> set[Path]:
    """Top-level files and folders of the distributions that training needs, and what they say of themselves to others.

    Each is a mount, and all together take longer than all else that starts a process: what nobody reads is left out.
    """
    known, needed = installed(), training_distributions()
    # A folder that several share (`nvidia`) is shown part by part, but for the harness's needs alone.
    others = {part for name in known.keys() - needed for part in tops(known[name])}
    found: set[Path] = set()
    for name in needed:
        for part in tops(known[name]):
            parts = {part} if part not in others else {p for p in tops(known[name], 2) if p.split("/")[0] == part}
            found |= {Path(str(known[name].locate_file(p))) for p in parts}
    return {path for path in found if path.exists() and not _is_silent(path)}


def _is_silent(path: Path) -> bool:
    """Metadata without entry points, which are all of it that is looked up by what imports the rest; `.pth` files."""
    return path.suffix == ".pth" or (path.suffix == ".dist-info" and not (path / "entry_points.txt").exists())
