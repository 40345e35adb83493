"""A corpus of the user's own: a file or folder of .txt, .md, .jsonl or .parquet."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from harness.corpora.copies import fingerprint
from harness.corpora.documents import SUFFIXES, documents
from harness.corpora.source import Split, Unit
from harness.errors import CorpusError

HELD = 500_000
"""Bytes of text that val, and holdout, are to have."""
LEAST = 32_000
"""Bytes that val must have: some 40 rows of 256 tokens. Less measures nothing."""
RAREST, COMMONEST = 0.02, 0.10
"""Share of the text that val, and holdout, are given: the first of large corpora, the second of small ones."""
LARGE = 64_000_000
"""Bytes on disk from which chance alone makes the shares come out right."""
ONE_UNIT = 64_000_000
"""Bytes on disk of the files that make one shard of train together."""
CUTS = 2_000, 16_000
"""Least and greatest length of the documents that a long text is cut into."""

KINDS = ", ".join(sorted(SUFFIXES))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the splits lie on the line of fingerprints: val below the first, holdout below the second."""

    val: bytes
    holdout: bytes

    def split(self, document: bytes) -> Split:
        """The split of a document; copies have one fingerprint, and so one split."""
        return "val" if document < self.val else "holdout" if document < self.holdout else "train"


class TextFiles:
    """The source for a path. Documents go to splits by a hash of their words, whatever file they stand in."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.name = re.sub(r"[^A-Za-z0-9_]+", "-", self.path.stem).strip("-").lower() or "text"
        self.key = f"path:{self.path}"

    def stamp(self) -> str:
        """A hash of the names, sizes and times of the files; empty if they are gone."""
        try:
            states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self._files]
        except (CorpusError, OSError):
            return ""
        return hashlib.sha256(repr(states).encode()).hexdigest()[:16]

    def units(self) -> Sequence[Unit]:
        """One unit for val, one for holdout, one for every 64 MB of files for train.

        Raises CorpusError if there is no readable text, or too little to measure on; reads a small corpus once.
        """
        sizes = {file: _size(file) for file in self._files}
        total = sum(sizes.values())
        length = min(max(total // 256, CUTS[0]), CUTS[1])
        read = partial(_read, length=length)
        bounds = _fixed_bounds() if total > LARGE else self._measured_bounds(lambda: read(self._files))

        def unit(split: Split, files: Sequence[Path], size: int = 0) -> Unit:
            name = f"{files[0].name} and {len(files) - 1:,} more" if files[1:] else files[0].name
            return Unit(name, split, lambda: _of(split, bounds, read(files)), size)

        train = [unit("train", group, sum(sizes[file] for file in group)) for group in _grouped(sizes)]
        return [unit("val", self._files), unit("holdout", self._files), *train]

    @cached_property
    def _files(self) -> list[Path]:
        """The files, by name. Raises CorpusError if there are none."""
        if self.path.is_file():
            if self.path.suffix.lower() not in SUFFIXES:
                raise CorpusError(f"{self.path} is none of {KINDS}.", "Rename it after what it holds, or convert it.")
            return [self.path]
        if not self.path.is_dir():
            raise CorpusError(
                f"The corpus {self.path} does not exist.",
                "Name climbmix, python, or a file or folder that is there.",
            )
        found = sorted(_below(self.path), key=lambda file: file.relative_to(self.path).as_posix())
        if not found:
            raise CorpusError(f"The folder {self.path} has no {KINDS} in it.", "Put the text there, or name another.")
        return found

    def _measured_bounds(self, texts: Callable[[], Iterator[str]]) -> Bounds:
        """Bounds that give val and holdout their share of a small corpus, to the document."""
        sizes: dict[bytes, int] = {}
        for text in texts():
            sizes[fingerprint(text)] = len(text.encode("utf-8", "replace"))
        sizes.pop(b"", None)
        total = sum(sizes.values())
        if not total:
            raise CorpusError(f"There is no text in {self.path}.", "Name a file or folder that holds some.")
        share = min(max(HELD, RAREST * total), COMMONEST * total)
        if share < LEAST:
            raise CorpusError(
                f"{self.path} has {total / 1e3:,.0f} kB of text, copies left out: too little to measure on "
                f"(val would have {share / 1e3:,.0f} kB, and needs {LEAST / 1e3:,.0f}).",
                f"Add text: {LEAST / COMMONEST / 1e3:,.0f} kB is the least.",
            )
        return self._bounds(sizes, share)

    def _bounds(self, sizes: dict[bytes, int], share: float) -> Bounds:
        marks: list[bytes] = []
        filled = 0
        for document in sorted(sizes):
            if filled >= share:
                marks.append(document)
                filled = 0
                if len(marks) == 2:
                    return Bounds(*marks)
            filled += sizes[document]
        raise CorpusError(
            f"The {len(sizes)} documents of {self.path} cannot be dealt to train, val and holdout.",
            "Cut the text into more documents: one a line in a .jsonl file.",
        )


def _fixed_bounds() -> Bounds:
    """Bounds that give val and holdout the smallest share of what is dealt by chance."""
    val, holdout = (int(share * 2**128).to_bytes(16) for share in (RAREST, 2 * RAREST))
    return Bounds(val, holdout)


def _read(files: Sequence[Path], length: int) -> Iterator[str]:
    for file in files:
        yield from documents(file, length)


def _of(split: Split, bounds: Bounds, texts: Iterator[str]) -> Iterator[str]:
    return (text for text in texts if bounds.split(fingerprint(text)) == split)


def _below(folder: Path) -> Iterator[Path]:
    """Files of a kind that can be read, those below hidden folders left out; links to folders not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


def _grouped(sizes: dict[Path, int]) -> Iterator[list[Path]]:
    """The files in order, in groups that a shard is made from."""
    group: list[Path] = []
    filled = 0
    for file, size in sizes.items():
        if group and filled + size > ONE_UNIT:
            yield group
            group, filled = [], 0
        group.append(file)
        filled += size
    if group:
        yield group


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error.strerror}.", "Make it readable.") from error
