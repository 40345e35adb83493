"""A prepared corpus on disk: opened, asked for its shards, verified."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.corpora.manifest import MANIFEST, File, Manifest
from harness.corpora.source import Split
from harness.corpora.tokenizer import Tokenizer
from harness.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokenized text in three splits. Frozen: nothing here changes but by preparing it anew."""

    folder: Path
    manifest: Manifest

    @property
    def identity(self) -> str:
        """Name and content hash of shards and tokenizer; part of the arena."""
        return self.manifest.identity

    @property
    def vocab(self) -> int:
        """Tokens of the vocabulary, the separator included."""
        return self.manifest.vocab

    def shards(self, split: Split) -> list[Path]:
        """Files of uint16 tokens, in order."""
        return [self.folder / shard.file for shard in self.manifest.shards[split]]

    def units(self, split: Split) -> list[str]:
        """What the shards of a split were made from, in order: of `python`, distributions as `NAME VERSION`."""
        return [shard.unit for shard in self.manifest.shards[split]]

    def tokens(self, split: Split) -> int:
        """Tokens of a split, separators included."""
        return sum(shard.tokens for shard in self.manifest.shards[split])

    def bytes(self, split: Split) -> int:
        """Bytes of text of a split."""
        return sum(shard.bytes for shard in self.manifest.shards[split])

    def tokenizer(self) -> Tokenizer:
        """The corpus's tokenizer. Raises CorpusError if its file is damaged."""
        path = self.folder / self.manifest.tokenizer.file
        try:
            return Tokenizer.parse(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"The tokenizer {path} cannot be read: {error}.", self._mend) from error

    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes of each token, int64 `[vocab]`, from its raw bytes; 0 for the separator."""
        return self.tokenizer().token_bytes()

    def verify(self) -> None:
        """Read every file and compare its hash. Raises CorpusError for the first that differs."""
        for entry in self.manifest.files:
            path = self.folder / entry.file
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry.sha256:
                raise CorpusError(f"{path} is damaged: its hash is not that of the manifest.", self._mend)

    def check_sizes(self) -> None:
        """Raises CorpusError if a file is missing or has another size than it was written with."""
        for entry in self.manifest.files:
            path, size = self.folder / entry.file, _size(self.folder, entry)
            if size is None:
                raise CorpusError(f"{path} is missing from the corpus.", self._mend)
            if size != entry.size:
                raise CorpusError(f"{path} has {size:,} bytes, not {entry.size:,}: it is damaged.", self._mend)

    @property
    def _mend(self) -> str:
        return mend(self.manifest.spec)

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {self.tokens(split):,}" for split in ("train", "val", "holdout"))
        return f"{self.identity}: {counts} tokens, vocabulary {self.vocab:,}, in {self.folder}"


def load(folder: Path) -> Corpus:
    """Open the corpus that lies in `folder`.

    Reads the manifest, not the shards: checks that it is whole and that all files have their sizes. Raises
    CorpusError with what to do.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.parse(path.read_bytes())
    except FileNotFoundError as error:
        raise CorpusError(f"There is no prepared corpus in {folder}: {MANIFEST} is missing.", mend()) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} cannot be used: {error}.", mend()) from error
    corpus = Corpus(folder, manifest)
    corpus.check_sizes()
    return corpus


def mend(spec: str = "CORPUS") -> str:
    """What to do about a corpus that is damaged, or whose text has changed."""
    return f"Prepare it anew: python prepare.py --corpus {shlex.quote(spec)} --rebuild"


def _size(folder: Path, entry: File) -> int | None:
    try:
        return (folder / entry.file).stat().st_size
    except OSError:
        return None
