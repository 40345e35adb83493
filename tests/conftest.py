"""What most tests stand on: a small real corpus, a small ruler, a small train.py, and a git checkout of them."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from harness import corpora
from harness.corpora import Corpus
from harness.machine import Slot, cores, memory_mb
from harness.ruler import Ruler
from harness.sandbox import levels
from harness.sandbox.walls import Sandbox
from harness.scoring.bench import Bench

ROOT = Path(__file__).parents[1]
VOCAB = 384

TRAIN = '''"""A bigram model: the smallest train.py that keeps the contract."""

import torch
from torch import nn
from torch.nn import functional as F

from prepare import SEED, VOCAB_SIZE, batches, log, pick, save_checkpoint

# Learning rate. [0.001..1.0 log]
LR = pick(gpu=0.1, cpu=0.1)

# Width of the embedding. [4..64 int]
WIDTH = 16

# Rows a step. [1 | 2 | 4]
ROWS = 2


def build_model(config):
    return nn.Sequential(nn.Embedding(config["vocab"], config["width"]), nn.Linear(config["width"], config["vocab"]))


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    config = {"vocab": VOCAB_SIZE, "width": WIDTH}
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for step, (x, y, progress) in enumerate(batches(64 * ROWS)):
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log(step=step, loss=loss.item())
    save_checkpoint(model, config)


if __name__ == "__main__":
    main()
'''


def small_ruler() -> str:
    """The real prepare.py with small constants: trials of it take no longer than starting them."""
    text = (ROOT / "prepare.py").read_text()
    wanted = f'{{"context": 64, "vocab": {VOCAB}, "budget": "steps:6", "val_tokens": 4096}}'
    for line in text.splitlines():
        name = line.strip().split(":")[0]
        if name in ('"gpu"', '"cpu"') and '"context"' in line:
            text = text.replace(line, f"    {name}: {wanted},")
    assert text.count(wanted) == 2
    return text


def write_text_corpus(folder: Path) -> Path:
    """Some 400 kB of sentences that a model can learn from, always the same."""
    words = ["the", "a", "model", "token", "loss", "learns", "reads", "small", "gradient", "matrix", "noise", "seed"]
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(80):
        lines = [" ".join(rng.choices(words, k=12)) + ".\n" for _ in range(70)]
        (folder / f"{number:02d}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the prepared corpus."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def corpus(text_corpus: Path, cache: Path) -> Corpus:
    return corpora.prepare(str(text_corpus), VOCAB, cache, say=lambda line: None)


@pytest.fixture(scope="session")
def ruler() -> str:
    return small_ruler()


@pytest.fixture(scope="session")
def slot() -> Slot:
    """A core of this test process alone, where there are as many as test processes."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    available = cores()
    return Slot((available[worker % len(available)],))


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The highest that this machine has; level 1 where it has none, as a user would have to ask for."""
    return levels.choose(os.environ, levels.bounds("cpu", memory_mb(), 2), unsandboxed=True)


@pytest.fixture(scope="session")
def bench(corpus: Corpus, text_corpus: Path, ruler: str, sandbox: Sandbox) -> Bench:
    return Bench(corpus, str(text_corpus), Ruler.read(ruler).scale("cpu"), "cpu", "cpu", os.environ, sandbox)


@pytest.fixture
def checkout(tmp_path: Path, ruler: str) -> Path:
    """A git checkout with one commit, in a folder whose name is awkward."""
    folder = tmp_path / "näch te"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "prepare.py").write_text(ruler)
    (folder / "program.md").write_text("Find a lower val_bpb.\n")
    (folder / ".gitignore").write_text("/results/\n/workspace/\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git there; what it printed."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout
