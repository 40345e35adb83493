"""What has arrived of files that are being fetched: the bytes on the disk, and how a person sees them come."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.corpora.source import Say

if TYPE_CHECKING:
    import httpx
    from rich import progress


@dataclass(frozen=True, slots=True)
class Version:
    """Which state of a file an answer is of. Bytes of two answers are joined only if both name the same."""

    tag: str
    """Strong ETag, or time of the last change; empty if the server gave neither: nothing is joined."""
    total: int | None
    """Bytes of the whole file, if the server said."""

    @classmethod
    def of(cls, response: httpx.Response, total: int | None) -> Version:
        tag = response.headers.get("etag", "")
        if not tag or tag.startswith("W/"):  # a weak one does not promise the same bytes
            tag = response.headers.get("last-modified", "")
        return cls(tag if tag.isascii() else "", total)  # others cannot be sent back

    def same(self, other: Version) -> bool:
        return self.tag == other.tag and self.total in (None, other.total)


class Part:
    """What has arrived of a file so far."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """Of the bytes that are there; None if there are none that can be gone on from."""
        try:
            note = json.loads(self._note.read_text())
            version = Version(tag=note["tag"], total=note["total"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return version if version.tag and self.size else None

    def begin(self, version: Version) -> None:
        """Empty, of this version. The old note goes first: no bytes stand under a note that is not theirs."""
        self._note.unlink(missing_ok=True)
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps(asdict(version)))

    def drop(self) -> None:
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Takes its final name, on the disk before it is seen under it."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


class Board(Protocol):
    """Shows how far the files are. Sizes in bytes."""

    def moved(self, name: str, size: int, total: int | None) -> None: ...

    def done(self, name: str, size: int) -> None: ...


@contextlib.contextmanager
def open_board(say: Say, files: int) -> Iterator[Board]:
    """Bars where a person looks on, lines where a log is kept."""
    from rich.console import Console

    console = Console(stderr=True)
    lines = _Lines(say, files)
    if not console.is_terminal:
        yield lines
        return
    from rich import progress as p

    columns = (p.TextColumn("{task.description}"), p.BarColumn(), p.DownloadColumn(), p.TransferSpeedColumn())
    with p.Progress(*columns, p.TimeRemainingColumn(), console=console, transient=True) as bars:
        yield _Bars(bars, lines)


class _Lines:
    """A line a file."""

    def __init__(self, say: Say, files: int) -> None:
        self._say, self._files, self._done = say, files, 0

    def moved(self, name: str, size: int, total: int | None) -> None:
        """Nothing: a log would drown in it."""

    def done(self, name: str, size: int) -> None:
        self._done += 1
        self._say(f"{name}: {size / 1e6:,.1f} MB ({self._done} of {self._files})")


class _Bars:
    """A bar for each file that is under way, and a line above them when it is done."""

    def __init__(self, bars: progress.Progress, lines: _Lines) -> None:
        self._bars, self._lines = bars, lines
        self._tasks: dict[str, progress.TaskID] = {}

    def moved(self, name: str, size: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name)
        self._bars.update(self._tasks[name], completed=size, total=total)

    def done(self, name: str, size: int) -> None:
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self._lines.done(name, size)
