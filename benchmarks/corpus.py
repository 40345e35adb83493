"""What preparing a corpus costs: seconds, text, tokens and peak memory of each phase, and how fast rows are read.

    python benchmarks/corpus.py [CORPUS] [VOCAB]

It prepares in a temporary folder and touches no cache. Peak memory is that of this process in the phase.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.corpora import TokenRows, prepare
from harness.corpora.build import sample
from harness.corpora.catalogue import source_of
from harness.corpora.tokenizer import Tokenizer

ROWS = 200_000_000
"""Tokens that are copied in rows."""


@dataclass
class Figures:
    """What a phase came to."""

    text: int = 0
    """Bytes."""
    tokens: int = 0


def peak_memory() -> float:
    """MB resident at most since the last `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def forget_peak() -> None:
    """Count the peak anew from here."""
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def phase(name: str) -> Iterator[Figures]:
    """Measure what is done inside, and print a line."""
    figures = Figures()
    forget_peak()
    start = time.perf_counter()
    yield figures
    seconds = time.perf_counter() - start
    speed = figures.tokens / seconds if figures.tokens else 0
    print(
        f"{name:24} {seconds:7.2f} s {figures.text / 1e6:8.1f} MB {figures.tokens:13,} tokens"
        f" {speed:15,.0f} tokens/s {peak_memory():7.0f} MB peak"
    )


def main(spec: str = "python", vocab: str = "2048") -> None:
    """Each phase by itself, then all of it as a user has it."""
    print(f"Preparing {spec} with a vocabulary of {vocab} in a temporary folder, phase by phase")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        source = source_of(spec, cache, None, print)
        with phase("find units"):
            units = source.units()
        with phase("read all text") as figures:
            figures.text = sum(len(text.encode("utf-8", "replace")) for u in units for text in u.documents())
        with phase("train tokenizer") as figures:
            tokenizer = Tokenizer.train(sample(units), int(vocab))
        held = [text for unit in units if unit.split != "train" for text in unit.documents()]
        with phase("encode val and holdout") as figures:
            tokens = tokenizer.encode(held)
            figures.tokens, figures.text = len(tokens), int(tokenizer.token_bytes()[tokens].sum())
        del held, tokens
        with phase("all of prepare()") as figures:
            corpus = prepare(spec, int(vocab), cache, say=lambda line: None)
            figures.tokens = sum(map(corpus.tokens, ("train", "val", "holdout")))
            figures.text = sum(map(corpus.bytes, ("train", "val", "holdout")))
        with phase("verify"):
            corpus.verify()
        for context in (256, 2048):
            rows = TokenRows(corpus.shards("train"), context)
            order = np.random.default_rng(1).integers(len(rows), size=ROWS // context // 10).tolist()
            out = np.empty(context + 1, np.uint16)
            with phase(f"copy rows of {context}") as figures:
                for index in order:
                    rows.copy(index, out)
                figures.tokens = len(order) * context
        print(corpus)


if __name__ == "__main__":
    main(*sys.argv[1:])
