"""Real models in real model servers: the honest pass with no gap and their own score, the others are found out."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import zoo

from harness.corpora.shards import TokenRows
from harness.scoring.bench import Bench
from harness.scoring.scorer import chunked, fixed_rows
from harness.scoring.session import Failure, score
from harness.types import Outcome, Score

ROOT = Path(__file__).parents[1]
HONEST = ["dropout", "tied", "mlp", "recurrent", "averaged", "token choice"]
CAUGHT = ["unmasked", "off by one", "normed over positions", "expert choice", "capacity", "leaking", "replaying"]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_the_zoo", path)
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


class Scored:
    """Saves a model as a training does, and scores it as a trial's is."""

    def __init__(self, bench: Bench, ruler: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.ruler, self.folder = bench, ruler, folder
        monkeypatch.setenv("AUTORESEARCH_SCALE", "cpu")
        self.prepare = module(ROOT / "prepare.py")

    def __call__(self, model: torch.nn.Module, config: dict, train: Path = ROOT / "tests/zoo.py") -> Score | Failure:
        checkpoint = self.folder / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "train.py").write_text(train.read_text())
        (checkpoint / "prepare.py").write_text(self.ruler)
        (checkpoint / "config.json").write_text(json.dumps(config))
        self.prepare.write_tensors(model, checkpoint / "model.safetensors")
        return asyncio.run(score(self.bench, checkpoint, self.folder))

    def expected(self, model: torch.nn.Module) -> float:
        """Bits per byte of a model in this process."""
        scale, corpus = self.bench.scale, self.bench.corpus
        text = fixed_rows(TokenRows(corpus.shards("val"), scale.context), scale.val_tokens // scale.context)
        lengths, nats, total = corpus.token_bytes(), 0.0, 0
        model.eval()
        with torch.inference_mode():
            for rows in chunked(len(text), scale.context, scale.vocab):
                tokens = torch.from_numpy(text[rows].astype(np.int64))
                logits = model(tokens[:, :-1]).float().flatten(0, 1)
                losses = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
                sizes = lengths[text[rows, 1:].reshape(-1)]
                nats += losses.numpy()[sizes > 0].sum(dtype=np.float64)
                total += sizes.sum()
        return nats / math.log(2) / total


@pytest.fixture
def scored(bench: Bench, ruler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scored:
    return Scored(bench, ruler, tmp_path, monkeypatch)


def build(kind: str, vocab: int, **changes: object) -> tuple[torch.nn.Module, dict]:
    torch.manual_seed(3)
    config = {"kind": kind, "vocab": vocab, "width": 32, **changes}
    return zoo.build_model(config), config


@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_model_has_no_gap_and_its_own_score(scored: Scored, kind: str) -> None:
    model, config = build(kind, scored.bench.scale.vocab)
    found = scored(model, config)
    assert isinstance(found, Score), found
    assert found.gap == 0
    assert found.audited == 16
    assert found.val_bpb == pytest.approx(scored.expected(model), rel=1e-5)


def test_an_honest_model_that_compiles_itself_has_no_gap_and_its_own_score(scored: Scored) -> None:
    model, config = build("attention", scored.bench.scale.vocab)
    found = scored(model, config | {"kind": "compiled"})
    assert isinstance(found, Score), found
    assert found.gap == 0
    assert found.val_bpb == pytest.approx(scored.expected(model), rel=1e-4)


@pytest.mark.parametrize("kind", ["attention", "token choice"])
def test_an_honest_model_in_bfloat16_has_no_gap_and_its_own_score(scored: Scored, kind: str) -> None:
    model, config = build(kind, scored.bench.scale.vocab, half=True)
    found = scored(model, config)
    assert isinstance(found, Score), found
    assert found.gap == 0
    assert found.val_bpb == pytest.approx(scored.expected(model), rel=1e-4)


@pytest.mark.parametrize(("depth", "width"), [(1, 16), (3, 48)])
def test_the_model_of_train_py_passes_at_other_depths_and_widths(scored: Scored, depth: int, width: int) -> None:
    import sys

    sys.modules["prepare"] = scored.prepare
    try:
        train = module(ROOT / "train.py")
    finally:
        del sys.modules["prepare"]
    scale = scored.bench.scale
    config = train.model_config() | {"vocab": scale.vocab, "context": scale.context, "head_dim": 16}
    config |= {"depth": depth, "width": width, "windows": "SSL", "short_window": 0.25}
    torch.manual_seed(4)
    model = train.build_model(config)
    with torch.no_grad():  # with no weight at zero, as after some training
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    found = scored(model, config, ROOT / "train.py")
    assert isinstance(found, Score), found
    assert found.gap == 0
    assert found.val_bpb == pytest.approx(scored.expected(model), rel=1e-4)


@pytest.mark.parametrize("kind", CAUGHT)
def test_a_model_that_reads_ahead_is_found_out(scored: Scored, kind: str) -> None:
    found = scored(*build(kind, scored.bench.scale.vocab))
    assert isinstance(found, Failure), found
    assert found.outcome == Outcome.NON_CAUSAL
    assert "reads what comes after" in found.reason


def test_a_model_that_is_random_in_eval_is_told_that_it_must_repeat(scored: Scored) -> None:
    found = scored(*build("random", scored.bench.scale.vocab))
    assert isinstance(found, Failure), found
    assert (found.outcome, "must repeat" in found.reason) == (Outcome.INVALID, True)
