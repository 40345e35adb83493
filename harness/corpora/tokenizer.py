"""Byte-pair encoding: trained with rustbpe, applied with tiktoken on all cores.

The number of bytes of a token is that of its raw bytes. Decoded text would count wrongly wherever a token
holds part of a character.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.corpora.shards import LARGEST_VOCAB, TOKEN, Tokens
from harness.errors import CorpusError

if TYPE_CHECKING:
    from tiktoken import Encoding

SEPARATOR = "<|bos|>"
"""The one special token, in front of each document. Text that spells it is ordinary text."""
SMALLEST_VOCAB = 256 + 1
LONG_NUMBERS = 1 << 14
"""From this vocabulary on digits stand in groups of three; a smaller one cannot afford a thousand numbers."""


class Tokenizer:
    """Text to tokens. The separator is the last id; ids that training found no pair for are never used."""

    def __init__(self, tokens: Sequence[bytes], pattern: str, vocab: int) -> None:
        """`tokens`: raw bytes by id, the 256 single bytes among them, at most `vocab` - 1."""
        self.tokens = list(tokens)
        self.pattern = pattern
        self.vocab = vocab
        self.separator = vocab - 1

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int) -> Tokenizer:
        """Learn the pairs of `texts`, which are read once and not held. Raises CorpusError on `vocab`."""
        check_vocab(vocab)
        import rustbpe

        trainer = rustbpe.Tokenizer()
        pattern = split_pattern(vocab)
        trainer.train_from_iterator(map(cleaned, texts), vocab_size=vocab - 1, buffer_size=512, pattern=pattern)
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda pair: int(pair[1]))
        return cls([bytes(raw) for raw, _ in ranked], pattern, vocab)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokens of documents, one after the other, the separator in front of each: uint16 `[tokens]`."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            pieces = list(pool.map(self._encode_one, texts))
        return np.concatenate(pieces) if pieces else np.zeros(0, TOKEN)

    def _encode_one(self, text: str) -> Tokens:
        ids = self._encoding.encode_to_numpy(cleaned(text), disallowed_special=())
        tokens = np.empty(len(ids) + 1, TOKEN)
        tokens[0] = self.separator
        tokens[1:] = ids
        return tokens

    def decode(self, tokens: Tokens) -> bytes:
        """The bytes that tokens stand for; nothing for the separator."""
        return b"".join(self.tokens[token] for token in tokens.tolist() if token != self.separator)

    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes of each token, int64 `[vocab]`; 0 for the separator and for ids that are never used."""
        sizes = np.zeros(self.vocab, np.int64)
        sizes[: len(self.tokens)] = [len(raw) for raw in self.tokens]
        return sizes

    def dump(self) -> bytes:
        """As a JSON file: the pattern, and the raw bytes of each token in hexadecimal."""
        content = {
            "kind": "byte-pair encoding",
            "vocab": self.vocab,
            "separator": SEPARATOR,
            "pattern": self.pattern,
            "tokens": [raw.hex() for raw in self.tokens],
        }
        return json.dumps(content, indent=0).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Tokenizer:
        """What `dump` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        fields = json.loads(content)
        return cls([bytes.fromhex(raw) for raw in fields["tokens"]], fields["pattern"], int(fields["vocab"]))

    @cached_property
    def _encoding(self) -> Encoding:
        from tiktoken import Encoding

        ranks = {raw: rank for rank, raw in enumerate(self.tokens)}
        return Encoding("corpus", pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={})


def split_pattern(vocab: int) -> str:
    """Where text is cut before pairs are looked for, in the manner of GPT-4's pattern.

    A word takes one character before it along (a space, an underscore, a bracket); marks take one space and
    the line ends after them; the last space of an indentation goes with the word. Runs of white space are
    bounded: an unbounded one overflows the engine's stack on a million spaces.
    """
    digits = 3 if vocab >= LONG_NUMBERS else 2
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+"
    numbers = rf"\p{{N}}{{1,{digits}}}"
    marks = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
    breaks = r"\s{0,64}[\r\n]+"
    spaces = r"\s{1,64}(?!\S)|\s"
    return "|".join((words, numbers, marks, breaks, spaces))


def cleaned(text: str) -> str:
    """The text as it can be encoded: a surrogate that stands alone becomes a question mark."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def check_vocab(vocab: int) -> None:
    """Raises CorpusError if a vocabulary cannot hold every byte, or a shard cannot hold it."""
    if not SMALLEST_VOCAB <= vocab <= LARGEST_VOCAB:
        raise CorpusError(
            f"A vocabulary of {vocab:,} tokens cannot be made.",
            f"It holds 256 bytes and a separator at least, {LARGEST_VOCAB:,} at most (16 bits a token).",
        )
