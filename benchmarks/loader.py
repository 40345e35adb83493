"""How fast tokens reach a trainer on one core: shards behind a feeder, or tokenizing while one trains.

    python benchmarks/loader.py

Both at context 2048, on one core, over the same text. (a) is the path of a real trial, end to end: the feeder
process reads shards, a socket and shared memory lead to `prepare.batches`, which makes int64 tensors. (b) tokenizes
each document when it is needed and packs rows by best fit, cropping one document a row, as trainers without
prepared shards do. The last line is the ratio.
"""

from __future__ import annotations

import bisect
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTEXT, TOKENS_PER_STEP, VOCAB = 2048, 262_144, 8192
SECONDS = 5.0
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+"
START = VOCAB - 1


def documents() -> list[str]:
    """Sources of the standard library, about 20 MB: text that is on every machine."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    return [file.read_text(encoding="utf-8", errors="replace") for file in files if "site-packages" not in file.parts]


def train_tokenizer(texts: list[str]):
    """A byte-pair encoding of VOCAB tokens; the last one begins a document."""
    import rustbpe
    import tiktoken

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), VOCAB - 1, pattern=SPLIT)
    ranks = {bytes(token): rank for token, rank in tokenizer.get_mergeable_ranks()}
    return tiktoken.Encoding("bench", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={"<|start|>": START})


def pack(encoding, texts: list[str], rows: int) -> Iterator[tuple]:
    """Loader (b): the longest waiting document that still fits is placed next; if none fits, one is cropped."""
    import itertools

    import torch

    source = itertools.cycle(texts)
    waiting: list[tuple[int, list[int]]] = []  # by length
    while True:
        batch = torch.empty(rows, CONTEXT + 1, dtype=torch.int64)
        for row in batch:
            filled = 0
            while (room := CONTEXT + 1 - filled) > 0:
                while len(waiting) < 256:
                    tokens = [START, *encoding.encode_ordinary(next(source))]
                    bisect.insort(waiting, (len(tokens), tokens))
                fits = bisect.bisect_right(waiting, room, key=lambda entry: entry[0])
                _, tokens = waiting.pop(fits - 1 if fits else 0)
                tokens = tokens[:room]
                row[filled : filled + len(tokens)] = torch.tensor(tokens)
                filled += len(tokens)
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def tokens_a_second(batches: Iterator[tuple]) -> float:
    """Measured over SECONDS, after a first batch that does not count."""
    next(batches)
    began, tokens = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < SECONDS:
        tokens += next(batches)[0].numel()
    return tokens / passed


def through_the_feeder(shard: Path) -> float:
    """Loader (a): feeder process and `prepare.batches`, as in a trial."""
    ours, theirs = socket.socketpair()
    orders = {"shards": [str(shard)], "context": CONTEXT, "seed": 1, "budget": "wall:600"}
    orders |= {"root": os.getpid(), "socket": theirs.fileno()}
    command = [sys.executable, "-m", "harness.feeder", json.dumps(orders)]
    os.environ |= {"AUTORESEARCH_SCALE": "gpu", "AUTORESEARCH_DEVICE": "cpu", "AUTORESEARCH_FEED": str(ours.detach())}
    feeder = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
    )
    try:
        theirs.close()
        sys.path.insert(0, str(ROOT))
        import prepare

        return tokens_a_second(prepare.batches(TOKENS_PER_STEP))
    finally:
        feeder.communicate()


def main() -> None:
    """Measure both and print the three figures."""
    import numpy as np
    import torch

    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # the feeder inherits it: both ends share one core
    torch.set_num_threads(1)
    texts = documents()
    print(f"Loading at context {CONTEXT} on core {core}; {sum(map(len, texts)) / 1e6:.0f} MB of text.", flush=True)
    encoding = train_tokenizer(texts)
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder, "train.bin")
        np.concatenate([[START, *encoding.encode_ordinary(text)] for text in texts]).astype("<u2").tofile(shard)
        fed = through_the_feeder(shard)
    packed = tokens_a_second(pack(encoding, texts, TOKENS_PER_STEP // CONTEXT))
    print(f"(a) feeder and prepare.batches:  {fed:>13,.0f} tokens/s")
    print(f"(b) tokenizing and packing:      {packed:>13,.0f} tokens/s")
    print(f"ratio a/b:                       {fed / packed:>13,.0f}")


if __name__ == "__main__":
    main()
