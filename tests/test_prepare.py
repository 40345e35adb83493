"""What train.py imports: batches from a real feeder, numbers logged, checkpoints saved."""

import ast
import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).parents[1]
ROWS = 12


def load_ruler(name: str = "ruler_under_test") -> ModuleType:
    """prepare.py as a module of its own, by the environment of the moment."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """prepare.py inside a trial of `steps:3` with a real feeder; `.ruler`, `.feeder`, `.out`."""
    shard = tmp_path / "train.bin"
    (np.arange(ROWS * 256 + 1) % 2048).astype("<u2").tofile(shard)
    ours, theirs = socket.socketpair()
    orders = {"shards": [str(shard)], "context": 256, "seed": 1, "budget": "steps:3"}
    orders |= {"root": os.getpid(), "socket": theirs.fileno()}
    command = [sys.executable, "-m", "harness.feeder", json.dumps(orders)]
    settings = {"SCALE": "cpu", "DEVICE": "cpu", "OUT": str(tmp_path / "out"), "FEED": str(ours.detach())}
    for name, value in settings.items():
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]) as feeder:
        theirs.close()
        ruler = load_ruler()
        yield SimpleNamespace(ruler=ruler, feeder=feeder, out=tmp_path / "out")
        ruler.feed()._feeder.close()


@pytest.fixture
def ruler(tmp_path, monkeypatch):
    """prepare.py with the settings of a trial, and nobody at the other end."""
    monkeypatch.setenv("AUTORESEARCH_SCALE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_FEED", "0")
    monkeypatch.setenv("AUTORESEARCH_OUT", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return load_ruler()


# --- constants ------------------------------------------------------------------------------------------------


def test_nothing_of_the_harness_is_imported_at_the_top():
    tree = ast.parse((ROOT / "prepare.py").read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imported
    assert not [node for node in imported if "harness" in ast.unparse(node)]


def test_the_scale_sets_the_constants(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_SCALE", "gpu")
    ruler = load_ruler()
    assert (ruler.SCALE, ruler.CONTEXT, ruler.VOCAB_SIZE, ruler.DEVICE) == ("gpu", 2048, 8192, "cuda")
    assert ruler.pick(gpu=1, cpu=2) == 1


def test_an_empty_variable_counts_as_absent(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_SCALE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_SEED", "")
    assert load_ruler().SEED == 1


def test_an_unknown_scale_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_SCALE", "tpu")
    with pytest.raises(SystemExit, match="gpu, cpu"):
        load_ruler()


# --- batches --------------------------------------------------------------------------------------------------


def test_a_batch_is_rows_of_tokens_and_of_those_after_them(trial):
    batches = list(trial.ruler.batches(4 * 256))
    assert len(batches) == 3
    for x, y, _ in batches:
        assert x.shape == y.shape == (4, 256)
        assert x.dtype == y.dtype == torch.int64
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert torch.equal((x + 1) % 2048, y)
    assert [progress for *_, progress in batches] == pytest.approx([0, 1 / 3, 2 / 3])


def test_batches_of_another_size_go_on_where_the_last_ended(trial):
    x, _, first = next(trial.ruler.batches(256))
    more = list(trial.ruler.batches(2 * 256))
    assert (len(x), first) == (1, 0.0)
    assert [len(x) for x, *_ in more] == [2, 2]
    assert list(trial.ruler.batches(256)) == []


def test_a_batch_stays_as_it_is_when_the_next_is_handed_out(trial):
    batches = trial.ruler.batches(4 * 256)
    x, _, _ = next(batches)
    before = x.clone()
    assert len(list(batches)) == 2
    assert torch.equal(x, before)


@pytest.mark.parametrize("tokens", [0, -256, 255, 257, (1 << 22) + 256])
def test_a_size_that_cannot_be_is_refused_at_once(ruler, tokens):
    with pytest.raises(ValueError, match=r"positive multiple of CONTEXT, 256, .* 4,194,304"):
        ruler.batches(tokens)


def test_a_feeder_that_is_gone_is_said_in_words(trial):
    batches = trial.ruler.batches(256)
    next(batches)
    trial.feeder.kill()
    trial.feeder.wait()
    with pytest.raises(ConnectionError, match="feeder is gone"):
        next(batches)


def test_a_fake_batch_leaves_the_random_state_alone(ruler):
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    x, y = ruler.fake_batch(3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert x.shape == y.shape == (3, 256)
    assert x.dtype == torch.int64
    assert 0 <= int(x.min()) <= int(x.max()) < 2048


def test_a_fake_batch_starts_no_clock(trial):
    trial.ruler.fake_batch(3)
    assert next(trial.ruler.batches(256))[2] == 0.0
    assert trial.ruler.fake_batch(1)[0].shape == (1, 256)


# --- what comes out -------------------------------------------------------------------------------------------


def test_numbers_are_logged_a_line_at_a_time(ruler):
    ruler.log(step=1, loss=torch.tensor(2.5))
    ruler.log(step=2, loss=np.float32(1.5), mfu=40)
    lines = (ruler.OUT / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5, "mfu": 40}]


class Odd(nn.Module):
    """Tied, in bf16, transposed, and a view of a larger tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.short = nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
        self.turned = nn.Parameter(torch.randn(2, 5).t())
        self.register_buffer("whole", torch.randn(8))
        self.register_buffer("part", self.whole[2:4])


def saved(ruler: ModuleType, model: nn.Module) -> dict[str, torch.Tensor]:
    """Save, and read back what is in the file."""
    ruler.save_checkpoint(model, {"depth": 1})
    return load_file(ruler.OUT / "model.safetensors")


def test_odd_tensors_are_saved_as_they_are(ruler):
    model = Odd()
    tensors = saved(ruler, model)
    assert tensors["short"].dtype == torch.bfloat16
    for name, tensor in tensors.items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_tied_tensors_are_saved_once_with_their_other_names(ruler):
    assert "head.weight" not in saved(ruler, Odd())
    with safe_open(ruler.OUT / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["aliases"]) == {"head.weight": "embedding.weight"}


def test_of_compiled_modules_the_inner_one_is_saved(ruler):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    names = list(model.state_dict())
    model[1] = torch.compile(model[1], backend="eager")
    assert sorted(saved(ruler, torch.compile(model, backend="eager"))) == sorted(names)


def test_the_config_is_saved_as_json(ruler):
    ruler.save_checkpoint(nn.Linear(1, 1), {"depth": 3, "windows": "SSL", "cap": 0.5, "half": False})
    config = json.loads((ruler.OUT / "config.json").read_text())
    assert config == {"depth": 3, "windows": "SSL", "cap": 0.5, "half": False}


def test_a_config_that_json_cannot_hold_leaves_the_last_checkpoint_as_it_was(ruler):
    saved(ruler, nn.Linear(1, 1))
    before = (ruler.OUT / "model.safetensors").read_bytes()
    with pytest.raises(TypeError):
        ruler.save_checkpoint(nn.Linear(2, 2), {"depth": object()})
    assert (ruler.OUT / "model.safetensors").read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_as_it_was(ruler):
    saved(ruler, nn.Linear(1, 1))
    before = (ruler.OUT / "model.safetensors").read_bytes()
    (ruler.OUT / "model.safetensors.part").mkdir()  # in the way of the new one
    with pytest.raises(Exception, match="directory"):
        ruler.save_checkpoint(nn.Linear(2, 2), {})
    assert (ruler.OUT / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 77),
        (torch.OutOfMemoryError("CUDA out of memory."), 77),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 77),
        (OSError(28, "No space left on device"), 78),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 78),
    ],
)
def test_the_harness_is_told_what_ran_out(ruler, capsys, error, code):
    with pytest.raises(SystemExit) as ended:
        ruler.exit_by_cause(type(error), error, None)
    assert ended.value.code == code
    assert type(error).__name__ in capsys.readouterr().err


def test_another_error_ends_as_it_always_does(ruler, capsys):
    ruler.exit_by_cause(ValueError, ValueError("shape"), None)
    assert "ValueError: shape" in capsys.readouterr().err


# --- alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["steps:2", "cpu:1"])
def test_train_py_alone_prepares_trains_and_scores(tmp_path, budget):
    for name in ("train.py", "prepare.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "harness").symlink_to(ROOT / "harness")
    words = [f"def function_{i}(value):\n    return value + {i * i}\n\n" for i in range(400)]
    (tmp_path / "texts").mkdir()
    for i in range(40):
        random.Random(i).shuffle(words)
        (tmp_path / "texts" / f"text{i}.txt").write_text("".join(words), encoding="utf-8")
    settings = {
        "SCALE": "cpu",
        "BUDGET": budget,
        "CORPUS": str(tmp_path / "texts"),
        "CACHE": str(tmp_path / "cache"),
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AUTORESEARCH_")}
    environ |= {f"AUTORESEARCH_{name}": value for name, value in settings.items()}
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environ, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "val_bpb:" in done.stdout, done.stderr
    facts = json.loads((tmp_path / "workspace" / "alone" / "trial.json").read_text())
    assert facts["tokens"] == 2048 * facts["steps"]
    if budget == "steps:2":
        assert (facts["steps"], facts["tokens"]) == (2, 4096)
    else:
        assert 1 <= facts["training_seconds"] < 10
