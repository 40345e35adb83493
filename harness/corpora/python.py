"""The `python` corpus: sources of the standard library and of installed distributions.

Real text that is on every machine. Distributions go whole to one split. Val and holdout come only from those
that training has no need of, nor a copy of, so that no sandbox shows what a model is measured on.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path

from harness.corpora.corpus import Corpus, mend
from harness.corpora.scripts import Origin, Script, origins, read
from harness.corpora.source import SPLITS, Split, Unit
from harness.errors import CorpusError
from harness.libraries import installed, shown_distributions

LIMIT = 64_000_000
"""Bytes of text in all splits."""
HELD = 3_000_000
"""Bytes of text that val, and holdout, are to have; they may get less."""
LEAST = 1_500_000
"""Bytes of text that val, and holdout, must have."""
ONE_HELD = 500_000
"""Bytes that one distribution gives to val or holdout at most: many hands, not one."""
SHORT_LINE = 20
"""Characters; shorter lines (`return None`) say nothing of where a text comes from."""

Chosen = Mapping[Split, Sequence[Origin]]


class InstalledPython:
    """The source of the `python` corpus. Deterministic for what is installed: by names and their hashes."""

    name = "python"
    key = "python"

    def __init__(
        self,
        path: Sequence[str] | None = None,
        standard: Path | None = None,
        *,
        limit: int = LIMIT,
        held: int = HELD,
        least: int = LEAST,
    ) -> None:
        """`path`: folders of distributions, `standard`: the standard library's; by default this interpreter's."""
        self._path, self._standard = path, standard
        self._limit, self._held, self._least = limit, held, least

    def stamp(self) -> str:
        """A hash of what is installed, by name and version."""
        names = [f"{name} {found.version}" for name, found in installed(self._path).items()]
        return hashlib.sha256("\n".join([sys.version, *names]).encode()).hexdigest()[:16]

    def units(self) -> Sequence[Unit]:
        """One unit a distribution. Raises CorpusError if too little is installed to measure on."""
        for split, lines in self._held_lines.items():
            self._check(split, lines.size)
        return [
            Unit(
                f"{origin.name or 'standard library'} {origin.version}",
                split,
                partial(self._documents, split, origin.scripts),
                origin.size,
            )
            for split, chosen in self._chosen.items()
            for origin in chosen
        ]

    @cached_property
    def _chosen(self) -> Chosen:
        """What each split is made of: dealt, then cut to size."""
        needed = shown_distributions(self._path)
        everything = [o for o in origins(needed, self._path, self._standard) if o.scripts or not o.name]
        dealt = deal([o for o in everything if o.name and o.name not in needed], self._held)
        chosen: dict[Split, Sequence[Origin]] = {}
        for split in ("val", "holdout"):
            chosen[split] = [_cut(origin, ONE_HELD) for origin in dealt[split]]
        rest = self._limit - sum(origin.size for split in chosen.values() for origin in split)
        standard = _cut(everything[0], rest // 2)
        others = [o for o in everything[1:] if o.name in needed] + list(dealt["train"])
        fair = fair_share([origin.size for origin in others], rest - standard.size)
        chosen["train"] = [o for o in (standard, *(_cut(origin, fair) for origin in others)) if o.scripts]
        return chosen

    @cached_property
    def _held_lines(self) -> Mapping[Split, _Lines]:
        """The lines of val and of holdout."""
        return {split: _Lines(self._chosen[split]) for split in ("val", "holdout")}

    def _documents(self, split: Split, scripts: Iterable[Script]) -> Iterator[str]:
        """Texts of the files, but for those that stand for the most part, line by line, in an earlier split.

        Distributions borrow from each other, and a borrowed file is seldom a copy to the byte.
        """
        earlier = takewhile(lambda other: other != split, SPLITS)
        lines = [self._held_lines[other] for other in earlier]
        for script in scripts:
            text = read(script)
            if text is not None and not any(held.hold_most_of(text) for held in lines):
                yield text

    def _check(self, split: Split, size: int) -> None:
        if size < self._least:
            raise CorpusError(
                f"The python corpus has {size / 1e6:.2f} MB of text for {split}; it needs {self._least / 1e6:.2f} MB, "
                "from installed packages that training has no need of.",
                "Install some more packages, or name a file or folder of text as the corpus.",
            )


def see_that_nothing_is_shown(corpus: Corpus) -> None:
    """Raise CorpusError if trials are shown a text of val or holdout: what is installed has changed since."""
    held = {unit.rpartition(" ")[0] for split in ("val", "holdout") for unit in corpus.units(split)}
    if seen := sorted(held & shown_distributions()):
        raise CorpusError(
            f"Code under test could read what it is measured on: training needs {', '.join(seen)} by now, and "
            f"{corpus.identity} holds it out.",
            mend(corpus.manifest.spec),
        )


def deal(origins: Sequence[Origin], held: int) -> Mapping[Split, Sequence[Origin]]:
    """Deal whole distributions to the splits: a sixth each to val and holdout, by a hash of the name.

    Where that leaves one of the two with less than `held` bytes (no distribution counts for more than
    `ONE_HELD`), it takes further ones from train, in the order of the hashes.
    """
    shuffled = sorted(origins, key=lambda origin: _hash(origin.name))
    dealt: dict[Split, list[Origin]] = {"val": [], "holdout": [], "train": []}
    for origin in shuffled:
        share = _hash(origin.name) / 2**64
        dealt["val" if share < 1 / 6 else "holdout" if share < 1 / 3 else "train"].append(origin)

    def weight(split: Split) -> int:
        return sum(min(origin.size, ONE_HELD) for origin in dealt[split])

    while dealt["train"]:
        poorer: Split = "holdout" if weight("holdout") < weight("val") else "val"
        if weight(poorer) >= held:
            break
        dealt[poorer].append(dealt["train"].pop(0))
    return {split: sorted(members, key=lambda origin: origin.name) for split, members in dealt.items()}


def fair_share(sizes: Iterable[int], budget: int) -> int:
    """The cap with which the sum of `min(size, cap)` is at most `budget`: small ones whole, large ones alike."""
    left, ordered = budget, sorted(sizes)
    for index, size in enumerate(ordered):
        cap = left // (len(ordered) - index)
        if size > cap:
            return max(0, cap)
        left -= size
    return max(ordered, default=0)


def _cut(origin: Origin, limit: int) -> Origin:
    """The origin with files of `limit` bytes at most: a spread over all of it, by a hash of their names."""
    if origin.size <= limit:
        return origin
    kept, size = set(), 0
    for script in sorted(origin.scripts, key=lambda script: _hash(script.name)):
        if size + script.size <= limit:
            kept.add(script)
            size += script.size
    return Origin(origin.name, origin.version, tuple(script for script in origin.scripts if script in kept))


def _hash(name: str) -> int:
    """A number of 64 bits that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8])


class _Lines:
    """The lines of some texts, to know other texts by."""

    def __init__(self, origins: Iterable[Origin]) -> None:
        self.size = 0
        """Bytes of all the texts."""
        self._known: set[int] = set()
        texts = (read(script) for origin in origins for script in origin.scripts)
        for text in texts:
            if text is not None:
                self.size += len(text.encode())
                self._known.update(map(hash, _telling(text)))

    def hold_most_of(self, text: str) -> bool:
        """Whether more than half of `text`, in characters of telling lines, stands in them."""
        lines = list(_telling(text))
        held = sum(len(line) for line in lines if hash(line) in self._known)
        return 2 * held > sum(map(len, lines))


def _telling(text: str) -> Iterator[str]:
    return (line for line in map(str.strip, text.splitlines()) if len(line) >= SHORT_LINE)
