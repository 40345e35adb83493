"""Whatever a train.py does, its trial has the outcome it must have, nothing outside changes, and no process is left.

Each file of `tests/hostile` is put at the head of a small honest train.py, whose `main` calls what it defines of
HOOKS. An attack that succeeds says so with `breach`. The docstring tells the outcome it must get, a pattern of the
reason, the budget, and a shorter limit of a phase where it is to be waited for.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.machine import Slot
from harness.runners.limits import Limits
from harness.runners.local import LocalRunner
from harness.sandbox.bounds import Bounds
from harness.scoring.bench import Bench
from harness.types import Job, Outcome, Result

CASES = {path.stem: path for path in sorted((Path(__file__).parent / "hostile").glob("*.py"))}
LIMITS = Limits(start=60, train=60, save=60, score=90, work=6)
SMALL = Bounds(memory_mb=4096, processes=40, disk_mb=64, files=2000)

SHARED, PLANTED = ("/tmp", "/dev/shm", "/var/tmp"), ("hoard", "weights", "planted")
"""Where anybody may write, and what the cases would leave there."""

HONEST = """
import torch
from torch import nn
from torch.nn import functional as F

from prepare import OUT, SEED, VOCAB_SIZE, batches, log, save_checkpoint


def hook(name, *arguments):
    return globals()[name](*arguments) if name in globals() else None


class Bigram(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.table, self.head = nn.Embedding(vocab, 16), nn.Linear(16, vocab)

    def forward(self, tokens):
        logits = self.head(self.table(tokens))
        if self.training:
            return logits
        return globals().get("answer", lambda self, tokens, logits: logits)(self, tokens, logits)


def build_model(config):
    hook("building", config)
    return Bigram(config["vocab"])


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    hook("before")
    config = {"vocab": VOCAB_SIZE}
    model = Bigram(VOCAB_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step, (x, y, progress) in enumerate(batches(128)):
        hook("during", step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log(step=step, loss=loss.item())
    hook("after", model, x, y)
    (globals().get("save") or save_checkpoint)(model, config)
    hook("at_last")


if __name__ == "__main__":
    main()
"""
HOOKS = ("before", "during", "after", "save", "at_last", "building", "answer")
HEAD = """
import json as _json
WORLD = _json.loads({world!r})


class Breach(BaseException):
    pass


def breach(text):
    raise Breach("BREACH: " + text)
"""


@dataclass(frozen=True)
class World:
    """What lies outside, for the cases to attack, and as it must be found afterwards."""

    folder: Path
    canary: subprocess.Popen[bytes]
    listeners: dict[str, socket.socket]
    corpus: Path
    text: Path

    def told(self) -> str:
        """As the cases know it."""
        tcp, udp = (self.listeners[kind].getsockname()[1] for kind in ("tcp", "udp"))
        return json.dumps(
            {
                "secret": str(self.folder / "secret"),
                "checkout": str(self.folder / "checkout"),
                "ledger": str(self.folder / "checkout/results/ledger.db"),
                "shards": str(self.corpus),
                "text": str(self.text),
                "socket": str(self.folder / "socket"),
                "abstract": self.listeners["abstract"].getsockname()[1:].decode(),
                "tcp": tcp,
                "udp": udp,
                "harness": os.getpid(),
                "canary": self.canary.pid,
            }
        )

    def contents(self) -> dict[str, object]:
        """Everything of the outside that could change."""
        files = [path for top in (self.folder, self.corpus, self.text) for path in sorted(top.rglob("*"))]
        found: dict[str, object] = {str(p): (p.stat().st_mode, p.stat().st_mtime_ns, p.stat().st_size) for p in files}
        left = [name for folder in SHARED for name in os.listdir(folder) if name.startswith(PLANTED)]
        return {**found, "left in shared folders": left}

    def reached(self) -> list[str]:
        """Listeners that somebody spoke to."""
        found = []
        for name, listener in self.listeners.items():
            with suppress(BlockingIOError):
                listener.recv(1) if name == "udp" else listener.accept()[0].close()
                found.append(name)
        return found


@pytest.fixture
def world(tmp_path: Path, bench: Bench, text_corpus: Path) -> Iterator[World]:
    folder = tmp_path / "outside"
    for name in ("checkout/.git/hooks", "checkout/results"):
        (folder / name).mkdir(parents=True)
    for name in ("secret", "config.json", "model.safetensors", "checkout/prepare.py", "checkout/results/ledger.db"):
        (folder / name).write_text("sk-planted-key")
    inet, unix = socket.AF_INET, socket.AF_UNIX
    listeners = {
        "tcp": socket.socket(inet, socket.SOCK_STREAM),
        "udp": socket.socket(inet, socket.SOCK_DGRAM),
        "abstract": socket.socket(unix, socket.SOCK_STREAM),
        "path": socket.socket(unix, socket.SOCK_STREAM),
    }
    os.chdir(folder)  # the path of a socket must be short
    addresses = [("127.0.0.1", 0), ("127.0.0.1", 0), f"\0autoresearch-{os.getpid()}", "socket"]
    for (name, listener), address in zip(listeners.items(), addresses, strict=True):
        listener.bind(address)
        listener.setblocking(False)
        if name != "udp":
            listener.listen()
    env = {"PATH": os.defpath, "OPENAI_API_KEY": "sk-planted-key"}
    canary = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
    yield World(folder, canary, listeners, bench.corpus.folder, text_corpus)
    canary.communicate()
    for listener in listeners.values():
        listener.close()


def living(folder: Path) -> list[int]:
    """Processes that work in a folder or below it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder):
                found.append(int(pid))
    return found


@dataclass(frozen=True)
class Place:
    """Where trials are run: in the highest sandbox of this machine, with small bounds."""

    bench: Bench
    ruler: str
    slot: Slot

    def run(self, folder: Path, source: str, budget: str = "steps:6", limits: Limits = LIMITS) -> Result:
        """One trial of a text; it works in `folder/scratch` and leaves `folder/trial`."""

        async def trial() -> Result:
            runner = LocalRunner(self.bench, budget, [self.slot], folder / "scratch", "arena", limits)
            job = Job("t", 3, 1, 0, 1, source, self.ruler, folder / "trial")
            return await runner.run(job, lambda progress: None)

        return asyncio.run(trial())


@pytest.fixture(scope="session")
def place(bench: Bench, ruler: str, slot: Slot) -> Place:
    if bench.sandbox.level == 1:
        pytest.skip(f"this machine has no sandbox: {bench.sandbox.why}")
    return Place(replace(bench, sandbox=replace(bench.sandbox, bounds=SMALL)), ruler, slot)


@pytest.fixture(scope="session")
def honest(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Of the text without any attack; its budget is a number of steps, so it repeats bit by bit."""
    result = place.run(tmp_path_factory.mktemp("honest"), HONEST)
    assert result.outcome is Outcome.OK, result.reason
    return result


def text_of(case: Path, world: World) -> str:
    """The train.py of a case."""
    source = case.read_text().replace("PAYLOAD", "w" * (1 << 18))
    return HEAD.format(world=world.told()) + source + HONEST


def expected(case: Path) -> dict[str, str]:
    """What its docstring says: `outcome: ...`, `reason: ...`, `budget: ...`, `limit: PHASE SECONDS`."""
    text = ast.get_docstring(ast.parse(case.read_text())) or ""
    return dict(re.findall(r"^(\w+): (.*)$", text, re.M))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_train_py(place: Place, honest: Result, world: World, tmp_path: Path, name: str) -> None:
    told = expected(CASES[name])
    limits = LIMITS
    if "limit" in told:
        phase, seconds = told["limit"].split()
        limits = replace(LIMITS, **{phase: float(seconds)})
    before = world.contents()
    result = place.run(tmp_path, text_of(CASES[name], world), told.get("budget", "steps:6"), limits)
    log = (tmp_path / "trial/output.log").read_bytes() if name != "weights_in_the_source" else b""
    assert b"BREACH" not in log, result.reason
    assert result.outcome == told["outcome"], result
    assert re.search(told.get("reason", ""), result.reason), result.reason
    assert result.val_bpb == (honest.val_bpb if result.ok else None)
    assert result.reason.isprintable()
    assert "sk-planted" not in result.reason
    assert world.contents() == before
    assert world.reached() == []
    assert world.canary.poll() is None
    assert living(tmp_path / "scratch") == []
    assert not any((tmp_path / "scratch").iterdir())
    assert len(log) < 3 << 20


def test_a_hook_of_every_case_is_called() -> None:
    """A case that defines none of them would attack nothing."""
    for name, path in CASES.items():
        defined = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert defined & set(HOOKS), name
        assert expected(path)["outcome"] in set(Outcome), name


def test_what_one_trial_leaves_no_other_finds(place: Place, tmp_path: Path) -> None:
    leave = """
import os
from pathlib import Path
PLACES = {os.path.abspath(os.path.expanduser(p + "/weights")) for p in ("/tmp", "/dev/shm", "/var/tmp", ".", "~")}


def before():
    for place in PLACES:
        if Path(place).exists():
            breach(f"{place} is still there")
        try:
            Path(place).write_text("learned")
        except OSError:
            pass
"""
    for name in ("first", "second"):
        result = place.run(tmp_path / name, HEAD.format(world="{}") + leave + HONEST)
        assert result.outcome is Outcome.OK, result.reason


def test_nothing_is_left_when_the_harness_is_killed_in_mid_trial(
    world: World, ruler: str, tmp_path: Path, text_corpus: Path, cache: Path
) -> None:
    """By SIGKILL, which no harness can see coming, while a trial has daemons that ignore every signal."""
    source = HEAD.format(world=world.told()) + (CASES["daemon"].read_text() + HONEST).replace(
        'hook("during", step)', 'hook("during", step)\n        import time\n        time.sleep(600)'
    )
    (tmp_path / "train.txt").write_text(source)
    (tmp_path / "ruler.txt").write_text(ruler)
    driver = f"""
import asyncio, os
from pathlib import Path
from harness import corpora
from harness.machine import Slot
from harness.ruler import Ruler
from harness.runners.local import LocalRunner
from harness.sandbox import levels
from harness.scoring.bench import Bench
from harness.types import Job
here = Path({str(tmp_path)!r})
ruler = (here / "ruler.txt").read_text()
corpus = corpora.find({str(text_corpus)!r}, Ruler.read(ruler).scale("cpu").vocab, Path({str(cache)!r}))
sandbox = levels.choose(os.environ, levels.bounds("cpu", 4096, 1), unsandboxed=True)
bench = Bench(corpus, "text", Ruler.read(ruler).scale("cpu"), "cpu", "cpu", os.environ, sandbox)
async def go():
    runner = LocalRunner(bench, "steps:6", [Slot((0,))], here / "scratch", "arena")
    job = Job("t", 3, 1, 0, 1, (here / "train.txt").read_text(), ruler, here / "trial")
    await runner.run(job, lambda progress: print(progress.phase, flush=True))
asyncio.run(go())
"""
    harness = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    for line in harness.stdout:
        if line.startswith("training"):
            break
    assert living(tmp_path / "scratch")
    harness.kill()
    harness.communicate()
    deadline = time.monotonic() + 20
    while left := living(tmp_path / "scratch"):
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.02)
    assert world.canary.poll() is None
