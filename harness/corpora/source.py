"""Where text comes from: the protocol that every corpus fulfils."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Split = Literal["train", "val", "holdout"]

SPLITS: tuple[Split, ...] = ("val", "holdout", "train")
"""In the order in which they are built: what stands in an earlier one stays out of the later ones."""

Say = Callable[[str], None]
"""Takes one line of news."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A portion of a corpus that is read in one go and becomes one shard: a distribution, a parquet file."""

    name: str
    """Unique in its split; stands in the manifest."""
    split: Split
    documents: Callable[[], Iterator[str]]
    """Reads, or fetches, its documents: in the same order whenever it is called, one at a time in memory.

    Raises CorpusError with a mend if they cannot be had.
    """
    size: int = 0
    """Bytes of text, roughly, if known before reading: the tokenizer's sample is shared out by it."""


class Source(Protocol):
    """A corpus as text. `build` turns it into shards and knows none by name."""

    name: str
    """As it stands in the identity of the corpus, such as `python`: letters, digits, `_` and `-`."""
    key: str
    """Names the choice of documents: one key, one corpus. Goes into the folder's hash."""

    def units(self) -> Sequence[Unit]:
        """All units, those of a split in the order of its shards. Raises CorpusError with a mend."""
        ...


@runtime_checkable
class Changing(Protocol):
    """A source whose text may change under the same key, as a user's folder does. The corpus stays frozen."""

    def stamp(self) -> str:
        """Tells one state of the text from another, without reading it."""
        ...


def stamp_of(source: Source) -> str:
    """The state of the text that `source` reads; empty where a key means the same text for ever."""
    return source.stamp() if isinstance(source, Changing) else ""
