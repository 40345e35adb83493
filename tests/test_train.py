"""The train.py of the checkout: its contract, its model and optimizers, and a real training of it."""

import ast
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from harness.hyperparameters import check, read

ROOT = Path(__file__).parents[1]
SOURCE = (ROOT / "train.py").read_text(encoding="utf-8")
MODEL_PARTS = ["build_model", "Model", "Block", "MLP", "Attention", "Linear", "norm", "rotate", "band"]
SMALL = {"TOKENS_PER_STEP": "1024", "ASPECT": "32", "HEAD_DIM": "16", "DEPTH": "2"}


def load_train() -> ModuleType:
    """train.py, and the prepare.py that it imports, by the environment of the moment."""
    sys.modules.pop("prepare", None)
    spec = importlib.util.spec_from_file_location("train_under_test", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT))
        sys.modules.pop("prepare", None)
    return module


@pytest.fixture
def train(monkeypatch) -> ModuleType:
    """train.py as it is in a trial on the CPU."""
    monkeypatch.setenv("AUTORESEARCH_SCALE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    torch.manual_seed(1)
    return load_train()


@pytest.fixture
def config(train) -> dict:
    """Of a small model that has every part: windows, value embeddings, a soft-cap."""
    changes = {"vocab": 64, "context": 32, "depth": 3, "width": 32, "head_dim": 16, "windows": "SSL"}
    return train.model_config() | changes | {"short_window": 0.25, "softcap": 15.0, "compute_type": "float32"}


def awake(model: torch.nn.Module) -> torch.nn.Module:
    """With no weight at zero, as after some training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


# --- the contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["gpu", "cpu"])
def test_every_range_is_well_formed_and_holds_its_value(scale):
    check(SOURCE, scale)
    searched = [found for found in read(SOURCE, scale) if found.range is not None]
    assert 20 <= len(searched) <= 28
    assert all(found.value in found.range for found in searched)


def test_changes_of_two_neighbouring_hyperparameters_merge(tmp_path):
    lines = SOURCE.splitlines(keepends=True)
    places = [
        i for i, line in enumerate(lines) if re.match(r"[A-Z_0-9]+ = ", line) and i < lines.index("def norm(x):\n")
    ]
    (tmp_path / "base").write_text(SOURCE)
    for first, second in pairwise(places):
        for name, place in (("ours", first), ("theirs", second)):
            (tmp_path / name).write_text("".join([*lines[:place], "CHANGED = 1\n", *lines[place + 1 :]]))
        merged = subprocess.run(
            ["git", "merge-file", "-p", "ours", "base", "theirs"], cwd=tmp_path, text=True, capture_output=True
        )
        assert merged.returncode == 0, lines[first]
        assert merged.stdout.count("CHANGED = 1\n") == 2


def test_what_the_scorer_builds_reads_no_constant_of_the_file():
    tree = ast.parse(SOURCE)
    constants = {found.name for found in read(SOURCE, "cpu")} | {"CONTEXT", "DEVICE", "SEED", "VOCAB_SIZE", "pick"}
    parts = [node for node in tree.body if getattr(node, "name", "Muon") in MODEL_PARTS]
    assert len(parts) == len(MODEL_PARTS)
    used = {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}
    assert used & constants == set()


def test_the_model_follows_from_its_config_whatever_the_environment(train, config, monkeypatch):
    here = train.build_model(config).state_dict()
    monkeypatch.setenv("AUTORESEARCH_SCALE", "gpu")
    monkeypatch.setenv("AUTORESEARCH_SEED", "77")
    torch.manual_seed(1)
    there = load_train().build_model(json.loads(json.dumps(config))).state_dict()
    assert list(here) == list(there)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_importing_it_starts_nothing(train):
    assert train.DEPTH == 1
    assert train.build_model(train.model_config()).training


@pytest.mark.parametrize(("scale", "width", "depth"), [("gpu", 640, 9), ("cpu", 64, 1)])
def test_the_width_is_rounded_up_to_whole_heads(monkeypatch, scale, width, depth):
    monkeypatch.setenv("AUTORESEARCH_SCALE", scale)
    found = load_train().model_config()
    assert (found["width"], found["depth"]) == (width, depth)


# --- the model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [1, 7, 32])
def test_logits_have_a_row_of_vocabulary_for_each_token(train, config, compute_type, length):
    model = train.build_model(config | {"compute_type": compute_type, "half_embeddings": True}).eval()
    with torch.inference_mode():
        logits = model(torch.randint(64, (2, length)))
    assert logits.shape == (2, length, 64)
    assert logits.dtype in (torch.float32, torch.bfloat16)
    assert logits.abs().max() <= 15


@pytest.mark.parametrize("windows", ["L", "SSL", "S"])
def test_no_token_sees_a_later_one(train, config, windows):
    model = awake(train.build_model(config | {"windows": windows})).eval()
    tokens = torch.randint(64, (2, 32))
    changed = tokens.clone()
    changed[:, 20:] = torch.randint(64, (2, 12))
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_a_short_window_sees_no_farther(train, config):
    attention = train.build_model(config).blocks[0].attention
    assert attention.window == 8
    mask = train.band(32, attention.window, "cpu")
    assert mask.sum(dim=1).tolist() == [min(i + 1, 8) for i in range(32)]
    assert mask[20].nonzero().flatten().tolist() == list(range(13, 21))


def test_the_last_block_sees_the_whole_context(train, config):
    windows = [block.attention.window for block in train.build_model(config | {"windows": "S"}).blocks]
    assert windows == [8, 8, 32]


@pytest.mark.parametrize(("which", "layers"), [("none", []), ("alternate", ["0", "2"]), ("all", ["0", "1", "2"])])
def test_value_embeddings_always_reach_the_last_block(train, config, which, layers):
    assert list(train.build_model(config | {"value_embeddings": which}).values) == layers


def test_every_weight_gets_a_gradient(train, config):
    model = awake(train.build_model(config))
    x = torch.randint(64, (2, 32))
    train.accumulate(train.mean_loss, model, x, x.roll(-1, 1), 2)
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fresh_model_knows_nothing(train, config):
    x = torch.randint(64, (2, 32))
    loss = train.mean_loss(train.build_model(config), x, x)
    assert loss.item() == pytest.approx(np.log(64), abs=0.05)


# --- optimizers -----------------------------------------------------------------------------------------------


def test_orthogonalising_brings_all_singular_values_near_one(train):
    values = torch.linalg.svdvals(train.orthogonalise(torch.randn(3, 32, 64)).float())
    assert 0.7 < values.min() <= values.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_muon_moves_against_the_gradient(train, shape):
    matrix = torch.nn.Parameter(torch.zeros(shape))
    matrix.grad = torch.randn(shape)
    train.Muon([matrix], train.muon_update).step(0.1, 0.9, 0.0)
    assert (matrix.detach() * matrix.grad).sum() < 0
    assert matrix.detach().norm() == pytest.approx(
        0.1 * min(shape) ** 0.5 * max(1, shape[0] / shape[1]) ** 0.5, rel=0.3
    )


def test_muon_survives_a_gradient_of_zero(train):
    matrix = torch.nn.Parameter(torch.ones(4, 8))
    matrix.grad = torch.zeros(4, 8)
    train.Muon([matrix], train.muon_update).step(0.1, 0.9, 0.0)
    assert torch.equal(matrix.detach(), torch.ones(4, 8))


def test_muon_decays_only_along_the_update(train):
    matrix = torch.nn.Parameter(torch.randn(16, 16))
    matrix.grad = torch.randn(16, 16)
    before, plain = matrix.detach().clone(), torch.nn.Parameter(matrix.detach().clone())
    plain.grad = matrix.grad
    train.Muon([matrix], train.muon_update).step(0.1, 0.9, 0.5)
    train.Muon([plain], train.muon_update).step(0.1, 0.9, 0.0)
    decayed = (matrix - plain).detach() != 0
    assert torch.equal(decayed, (before - plain.detach()) * before >= 0)


def test_every_parameter_has_one_optimizer(train, config):
    model = train.build_model(config)
    adamw, muon = train.make_optimizers(model)
    held = [p for group in adamw.param_groups for p in group["params"]]
    held += [p for same, *_ in muon.groups for p in same]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_the_gradient_is_that_of_all_rows_whatever_the_micro_batch(train, config, micro):
    model = awake(train.build_model(config))
    x = torch.randint(64, (4, 32))
    loss = train.accumulate(train.mean_loss, model, x, x.roll(-1, 1), 4)
    whole = model.head.weight.grad.clone()
    model.zero_grad()
    assert train.accumulate(train.mean_loss, model, x, x.roll(-1, 1), micro).item() == pytest.approx(loss.item())
    assert torch.allclose(model.head.weight.grad, whole, atol=1e-6)


def test_micro_batches_divide_a_step(train):
    assert [train.divisor(128, most) for most in (0, 1, 100, 128, 1000)] == [1, 1, 64, 128, 128]
    assert train.divisor(12, 5) == 4


def test_the_learning_rate_falls_over_the_cooldown_to_its_floor(train, monkeypatch):
    monkeypatch.setattr(train, "COOLDOWN", 0.5)
    monkeypatch.setattr(train, "LR_FLOOR", 0.1)
    shares = [train.lr_share(progress) for progress in (0, 0.5, 0.75, 1)]
    assert shares == pytest.approx([1, 1, 0.55, 0.1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_it(train, value):
    with pytest.raises(FloatingPointError, match="loss is not finite at step 3"):
        train.finite(torch.tensor(value), 3)


# --- a real training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """What one training left."""

    checkpoint: bytes
    config: dict
    losses: list[float]


def run_train(folder: Path, budget: str, changes: dict[str, str], seed: int = 1) -> Trained:
    """Train a copy with some hyperparameters changed, fed by a real feeder; fails if it does."""
    source = SOURCE
    for name, value in changes.items():
        source = re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.M)
    folder.mkdir()
    (folder / "train.py").write_text(source)
    (folder / "prepare.py").write_bytes((ROOT / "prepare.py").read_bytes())
    (np.arange(40 * 256 + 1) ** 2 % 97).astype("<u2").tofile(folder / "train.bin")
    ours, theirs = socket.socketpair()
    settings = {"SCALE": "cpu", "DEVICE": "cpu", "OUT": str(folder), "SEED": str(seed), "FEED": str(ours.fileno())}
    environ = os.environ | {f"AUTORESEARCH_{name}": value for name, value in settings.items()}
    orders = {"shards": [str(folder / "train.bin")], "context": 256, "seed": seed, "budget": budget}
    orders |= {"root": os.getpid(), "socket": theirs.fileno()}
    feeder = [sys.executable, "-m", "harness.feeder", json.dumps(orders)]
    with ours, subprocess.Popen(feeder, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]):
        theirs.close()
        trainer = [sys.executable, "train.py"]
        done = subprocess.run(
            trainer, cwd=folder, env=environ, pass_fds=[ours.fileno()], capture_output=True, text=True
        )
        ours.close()
    assert done.returncode == 0, done.stderr
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    config = json.loads((folder / "config.json").read_text())
    return Trained((folder / "model.safetensors").read_bytes(), config, losses)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """Twelve steps of a small model."""
    return run_train(tmp_path_factory.mktemp("train") / "first", "steps:12", SMALL)


def test_the_same_seed_and_steps_give_the_same_weights_bit_by_bit(trained, tmp_path):
    assert run_train(tmp_path / "again", "steps:12", SMALL).checkpoint == trained.checkpoint


def test_another_seed_gives_other_weights(trained, tmp_path):
    assert run_train(tmp_path / "other", "steps:12", SMALL, seed=2).checkpoint != trained.checkpoint


def test_it_learns(trained):
    assert trained.losses[-1] < trained.losses[0] - 0.5


def test_what_it_saves_fits_what_build_model_makes(train, trained, tmp_path):
    from safetensors.torch import load

    model = train.build_model(trained.config)
    assert not any(model.load_state_dict(load(trained.checkpoint), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiles for a GPU")
def test_warming_up_leaves_weights_and_random_state_as_they_were(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_SCALE", "gpu")
    train = load_train()
    model = train.build_model(train.model_config() | {"depth": 2, "width": 128}).cuda()
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    train.warm_up(model)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
