"""Token shards: flat files of uint16, little-endian, and the rows that are cut from them."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import CorpusError

TOKEN = np.dtype("<u2")
"""How a token lies on disk, whatever the machine."""
LARGEST_VOCAB = 1 << 16

Tokens = NDArray[np.uint16]


class TokenRows:
    """Overlapping rows of `context + 1` tokens over the concatenation of shards, in the order given.

    Row `i` is tokens `[i * context, i * context + context + 1)`: the last token of a row is the first of the
    next, so that every token but the very first is a target once. A row may span shards. A tail shorter than
    a row is left out. The shards are memory-mapped: rows cost no memory, and a copy is a slice.
    """

    def __init__(self, paths: Sequence[Path], context: int) -> None:
        """`context` in tokens, at least 1. Raises CorpusError if a shard is missing or has half a token."""
        if context < 1:
            raise ValueError(f"context is {context}; a row needs at least one token")
        self.context = context
        self._maps = [tokens for tokens in map(map_shard, paths) if len(tokens)]
        self._starts = [0]
        for tokens in self._maps:
            self._starts.append(self._starts[-1] + len(tokens))

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return self._starts[-1]

    def __len__(self) -> int:
        return max(0, (self.tokens - 1) // self.context)

    def copy(self, index: int, out: Tokens) -> None:
        """Fill `out`, uint16 `[context + 1]`, with row `index`. Raises IndexError where there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if len(out) != self.context + 1:
            raise ValueError(f"out holds {len(out)} tokens; a row has {self.context + 1}")
        start, filled = index * self.context, 0
        shard = bisect_right(self._starts, start) - 1
        while filled < len(out):
            offset = start + filled - self._starts[shard]
            piece = self._maps[shard][offset : offset + len(out) - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard += 1


def map_shard(path: Path) -> Tokens:
    """The tokens of one shard, read-only, uint16 `[tokens]`. Raises CorpusError if it cannot be mapped."""
    mend = "Prepare the corpus again: python prepare.py --corpus CORPUS --rebuild"
    try:
        size = path.stat().st_size
        if size % TOKEN.itemsize:
            raise CorpusError(f"{path} is {size:,} bytes long: the last token is cut in half.", mend)
        if size == 0:  # an empty file cannot be mapped
            return np.zeros(0, TOKEN)
        return np.memmap(path, TOKEN, mode="r").view(np.ndarray)
    except OSError as error:
        raise CorpusError(f"The shard {path} cannot be read: {error.strerror}.", mend) from error


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was written: what a manifest says of it."""

    size: int
    """In bytes."""
    sha256: str


def write_shard(path: Path, batches: Iterable[Tokens]) -> Written:
    """Write uint16 arrays one after the other, atomically: `path` is whole or is not there.

    The folder must exist. Whatever interrupts it, an exception in `batches` included, leaves no file behind
    but a temporary one after a power failure, which `clear_leftovers` removes.
    """
    return write_atomically(path, (np.ascontiguousarray(tokens, TOKEN).data.cast("B") for tokens in batches))


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Write bytes to a temporary file beside `path`, flush it to the disk, and give it its name."""
    digest, size = hashlib.sha256(), 0
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Written(size, digest.hexdigest())


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of a writer that was killed. Hold the folder's lock."""
    for leftover in folder.rglob("*.part"):
        leftover.unlink(missing_ok=True)
