"""Turns a source into token shards: the tokenizer first, then val, holdout and train, a unit at a time."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from harness.corpora.copies import Copies, fingerprint
from harness.corpora.journal import Journal
from harness.corpora.manifest import FORMAT, MANIFEST, TOKENIZER, File, Manifest, Shard
from harness.corpora.progress import Progress
from harness.corpora.shards import Tokens, map_shard, write_atomically, write_shard
from harness.corpora.source import SPLITS, Say, Source, Split, Unit, stamp_of
from harness.corpora.tokenizer import Tokenizer
from harness.errors import CorpusError

SAMPLE = 30_000_000
"""Characters of train that the tokenizer is trained on, at most."""
BATCH = 4_000_000
"""Characters that are encoded at a time: enough for all cores, little enough for memory."""


def build(source: Source, spec: str, vocab: int, folder: Path, say: Say) -> Manifest:
    """Prepare all of `source` in `folder`, which becomes a complete corpus; hold its lock.

    An interrupted call leaves what is done, and the next one goes on from there, as long as the source's
    units are still the same. In memory lie one batch of text and the hashes of val and holdout.

    Raises CorpusError as the source does, and where a split has no text; OSError if the disk is full.
    """
    units = source.units()
    stamp = stamp_of(source)
    journal = Journal(folder, _plan(units, stamp))
    with Progress(say, len(units)) as progress:
        progress.phase("tokenizer")
        tokenizer, entry = _tokenizer(folder / TOKENIZER, units, vocab, progress)
        builder = _Builder(journal, tokenizer, Copies(), progress)
        shards = {split: builder.split(split, units) for split in SPLITS}
    versions = {name: version(name) for name in ("rustbpe", "tiktoken")}
    versions["python"] = ".".join(map(str, sys.version_info[:3]))
    manifest = Manifest(FORMAT, source.name, spec, source.key, vocab, stamp, versions, entry, shards)
    write_atomically(folder / MANIFEST, [manifest.dump()])
    journal.remove()
    return manifest


def sample(units: Iterable[Unit], limit: int = SAMPLE) -> Iterator[str]:
    """Documents of all train units, some `limit` characters together.

    A unit gives in proportion to its size, spread over its documents; one of unknown size gives as much as
    the average, from its beginning, so that no more of it need be fetched.
    """
    train = [unit for unit in units if unit.split == "train"]
    known = [unit.size for unit in train if unit.size]
    average = sum(known) / len(known) if known else 1.0
    total = sum(unit.size or average for unit in train)
    for unit in train:
        share = limit * (unit.size or average) / total
        rate = share / unit.size if unit.size else 1.0
        yield from _thinned(unit.documents(), rate, share)


def _thinned(documents: Iterator[str], rate: float, share: float) -> Iterator[str]:
    """Every so many documents, until `share` characters are taken."""
    seen = taken = 0
    for text in documents:
        if taken >= share:
            return
        seen += len(text)
        if taken <= rate * seen:
            piece = text[: int(share) - taken + 1]
            taken += len(piece)
            yield piece


def _plan(units: Sequence[Unit], stamp: str) -> str:
    """A hash of what is to be done. Raises CorpusError where a split would have no unit."""
    for split in SPLITS:
        if not any(unit.split == split for unit in units):
            raise CorpusError(f"The corpus has nothing for {split}.", "Give it more text.")
    names = [(unit.name, unit.split) for unit in units]
    return hashlib.sha256(json.dumps([stamp, names]).encode()).hexdigest()


def _tokenizer(path: Path, units: Sequence[Unit], vocab: int, progress: Progress) -> tuple[Tokenizer, File]:
    """The tokenizer that an interrupted call left, or one trained now and written."""
    if path.exists():
        content = path.read_bytes()
        tokenizer = Tokenizer.parse(content)
    else:
        tokenizer = Tokenizer.train(_counted(sample(units), progress), vocab)
        content = tokenizer.dump()
        write_atomically(path, [content])
    return tokenizer, File(path.name, len(content), hashlib.sha256(content).hexdigest())


def _counted(texts: Iterator[str], progress: Progress) -> Iterator[str]:
    for text in texts:
        progress.read(len(text))
        yield text


@dataclass(slots=True)
class _Tally:
    """What a unit came to."""

    tokens: int = 0
    bytes: int = 0
    documents: int = 0
    copies: int = 0


@dataclass(frozen=True, slots=True)
class _Builder:
    """Writes shards, split by split."""

    journal: Journal
    tokenizer: Tokenizer
    copies: Copies
    progress: Progress

    def split(self, split: Split, units: Sequence[Unit]) -> tuple[Shard, ...]:
        """All shards of a split, those that are there already included."""
        chosen = [unit for unit in units if unit.split == split]
        (self.journal.folder / split).mkdir(exist_ok=True)
        shards = tuple(self._shard(f"{split}/{number:05d}.bin", unit) for number, unit in enumerate(chosen))
        if not any(shard.documents for shard in shards):
            raise CorpusError(
                f"No text is left for {split}: it was dealt no document but empty ones and copies.",
                "Give the corpus more documents.",
            )
        return shards

    def _shard(self, file: str, unit: Unit) -> Shard:
        self.progress.phase(unit.split)
        shard = self.journal.finished(file, unit.name)
        if shard is None:
            shard = self._write(file, unit)
            self.journal.record(shard)
        elif unit.split != "train":
            self._remember(self.journal.folder / file)
        self.progress.unit_done()
        return shard

    def _write(self, file: str, unit: Unit) -> Shard:
        tally = _Tally()
        written = write_shard(self.journal.folder / file, self._encoded(unit, tally))
        return Shard(
            file=file,
            size=written.size,
            sha256=written.sha256,
            unit=unit.name,
            tokens=tally.tokens,
            bytes=tally.bytes,
            documents=tally.documents,
            copies=tally.copies,
        )

    def _encoded(self, unit: Unit, tally: _Tally) -> Iterator[Tokens]:
        sizes = self.tokenizer.token_bytes()
        for texts in _batches(self._fresh(unit, tally)):
            tokens = self.tokenizer.encode(texts)
            read = int(sizes[tokens].sum())
            tally.tokens += len(tokens)
            tally.bytes += read
            tally.documents += len(texts)
            self.progress.read(read)
            yield tokens

    def _fresh(self, unit: Unit, tally: _Tally) -> Iterator[str]:
        """The unit's documents but for empty ones and copies of what val and holdout hold."""
        held = unit.split != "train"
        is_new = self.copies.add if held else partial(_absent, self.copies)
        for text in unit.documents():
            document = fingerprint(text)
            if not document:
                continue
            if is_new(document):
                yield text
            else:
                tally.copies += 1

    def _remember(self, shard: Path) -> None:
        """Take the documents of a shard that was written before from its tokens, which hold every byte."""
        tokens = map_shard(shard)
        starts = np.flatnonzero(tokens == self.tokenizer.separator)
        for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
            self.copies.add(fingerprint(self.tokenizer.decode(tokens[start:end]).decode("utf-8")))


def _absent(copies: Copies, document: bytes) -> bool:
    return document not in copies


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
