"""What a prepared corpus says of itself: every file with its hash, and where its text came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.corpora.source import SPLITS, Split

FORMAT = 1
"""Version of layout, split pattern and rules of preparation; goes into the names of folders."""
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"


@dataclass(frozen=True, slots=True)
class File:
    """A file of the corpus."""

    file: str
    """Its path below the corpus's folder, with `/`."""
    size: int
    """In bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard(File):
    """A file of tokens, and the unit of text that it was made from."""

    unit: str
    tokens: int
    """Separators included."""
    bytes: int
    """Of the text."""
    documents: int
    copies: int
    """Documents that were left out, since they stand in a split that is measured on, or in val twice."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `manifest.json`."""

    format: int
    name: str
    """Of the source, as in the identity."""
    spec: str
    """As the user named it: `python`, or a path."""
    key: str
    vocab: int
    stamp: str
    """State of the source's text when it was read; empty where that cannot change."""
    versions: Mapping[str, str]
    """Of the interpreter and of the libraries that made it."""
    tokenizer: File
    shards: Mapping[Split, tuple[Shard, ...]]

    @property
    def identity(self) -> str:
        """Name, and hash of the contents of tokenizer and shards, in order: `python-1f3ab24c9d01`."""
        content = [
            self.tokenizer.sha256,
            *([s.sha256 for s in self.shards[split]] for split in sorted(SPLITS)),
        ]
        return f"{self.name}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]}"

    @property
    def folder(self) -> str:
        """Name of the corpus's folder in a cache."""
        return folder_name(self.key, self.vocab)

    @property
    def files(self) -> list[File]:
        """All files but the manifest itself."""
        return [self.tokenizer, *(shard for split in SPLITS for shard in self.shards[split])]

    def dump(self) -> bytes:
        """As JSON, with the identity and the sums for whoever reads it."""
        sums = {split: self._sums(split) for split in SPLITS}
        return json.dumps({"identity": self.identity, "sums": sums, **asdict(self)}, indent=1).encode() + b"\n"

    def _sums(self, split: Split) -> dict[str, int]:
        names = ("tokens", "bytes", "documents", "copies")
        return {name: sum(getattr(shard, name) for shard in self.shards[split]) for name in names}

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """What `dump` wrote, checked against itself. Raises ValueError, KeyError or TypeError if not whole."""
        fields: dict[str, Any] = json.loads(content)
        identity, sums = fields.pop("identity"), fields.pop("sums")
        fields["tokenizer"] = File(**fields["tokenizer"])
        fields["shards"] = {split: tuple(Shard(**s) for s in fields["shards"][split]) for split in SPLITS}
        manifest = cls(**fields)
        if manifest.format != FORMAT:
            raise ValueError(f"it has format {manifest.format}, this harness reads {FORMAT}")
        if manifest.identity != identity or any(manifest._sums(split) != sums[split] for split in SPLITS):
            raise ValueError("its hashes or sums do not belong together")
        return manifest


def folder_name(key: str, vocab: int) -> str:
    """Where the corpus of a source lies in a cache, known before it is prepared."""
    return hashlib.sha256(json.dumps([FORMAT, key, vocab]).encode()).hexdigest()[:16]
