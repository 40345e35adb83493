"""One checkpoint scored: starts the scorer and the model server, connects them, and reads the answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.corpora import Corpus
from harness.corpora.source import Split
from harness.errors import HarnessError
from harness.ruler import Scale
from harness.sandbox.process import Command, Module, Supervised, environment
from harness.scoring import wire
from harness.scoring.artifact import BadArtifact, parameters
from harness.text import one_line, tail_bytes
from harness.types import Outcome, Score

SCORER = 1
"""Version of the scorer: part of the arena. Raise it with every change that can move a score."""
SERVER = Path(__file__).with_name("server.py")
BUILDING = "before its model was built"
"""How the scorer's reason ends while the server has seen no token of the split."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no score."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and by what a checkpoint is scored: the same for all trials of an arena."""

    corpus: Corpus
    corpus_spec: str
    """As it was asked for: `python`, a path."""
    scale: Scale
    scale_name: str
    device: str
    environ: Mapping[str, str]
    """Ours; a process under test gets an allowlist of it."""
    split: Split = "val"


async def score(
    bench: Bench,
    folder: Path,
    scratch: Path,
    cores: Sequence[int] = (),
    gpu: int | None = None,
    limit: float | None = None,
) -> Score | Failure:
    """Score the checkpoint that lies in `folder`: model.safetensors, config.json, train.py, prepare.py.

    `limit` in seconds; None: as long as it takes.
    The model server works on a copy in `scratch`. `server.log` and `scorer.log` are left in `folder`; the former
    may hold text of the split and is shown to no researcher.
    """
    started = time.monotonic()
    try:
        params = parameters(folder / "model.safetensors")
    except (BadArtifact, OSError) as error:
        return Failure(Outcome.BAD_ARTIFACT, str(error))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = await _serve(bench, folder, scratch, theirs, cores, gpu)
        theirs.close()  # so that each side sees the other hang up
        try:
            answer = await _ask(bench, folder, ours, cores, gpu, limit)
        finally:
            ended = await server.end()
    if "val_bpb" in answer:
        seconds = time.monotonic() - started
        return Score(answer["val_bpb"], answer["tokens"], answer["bytes"], seconds, params)
    if ended.code == -signal.SIGKILL and not ended.cut:
        return Failure(Outcome.OOM, "the model server was killed, as the system does when memory runs out")
    reason: str = answer["reason"]
    if reason.endswith(BUILDING):  # nothing of the split was known to it yet, so its words may be shown
        reason += f": {last_line(folder / 'server.log')}"
    return Failure(Outcome(answer["outcome"]), reason)


async def _serve(
    bench: Bench, folder: Path, scratch: Path, sock: socket.socket, cores: Sequence[int], gpu: int | None
) -> Supervised:
    room = Path(tempfile.mkdtemp(prefix="server-", dir=scratch))
    for name in ("train.py", "prepare.py", "config.json", "model.safetensors"):
        await asyncio.to_thread(shutil.copyfile, folder / name, room / name)
    spec = {
        "socket": sock.fileno(),
        "device": bench.device,
        "threads": max(1, len(cores)),
        "wire": str(Path(wire.__file__)),
    }
    env = environment(room, bench.environ, AUTORESEARCH_SCALE=bench.scale_name, **visible(gpu))
    command = Command(
        argv=[sys.executable, str(SERVER), json.dumps(spec)],
        cwd=room,
        output=folder / "server.log",
        env=env,
        cores=cores,
        fds=[sock.fileno()],
    )
    return await Supervised.start(command)


async def _ask(
    bench: Bench, folder: Path, sock: socket.socket, cores: Sequence[int], gpu: int | None, limit: float | None
) -> dict[str, Any]:
    spec = {
        "socket": sock.fileno(),
        "device": bench.device,
        "context": bench.scale.context,
        "vocab": bench.scale.vocab,
        "val_tokens": bench.scale.val_tokens,
        "shards": [str(path) for path in bench.corpus.shards(bench.split)],
        "token_bytes": bench.corpus.token_bytes().tolist(),
    }
    log = folder / "scorer.log"
    scorer = await Module.start(
        "harness.scoring.scorer",
        spec,
        environ=bench.environ,
        extra=visible(gpu),
        errors=log,
        fds=[sock.fileno()],
        cores=cores,
    )
    try:
        async with asyncio.timeout(limit):
            async for line in scorer.lines():
                return line
    except TimeoutError:
        return {"outcome": "timeout", "reason": f"scoring took longer than {limit:.0f} s: the model is too slow"}
    finally:
        code = await scorer.end()
    if code < 0:
        return {"outcome": "lost", "reason": "the scorer was killed, which the system does when memory runs out"}
    # A fault of ours, not of the model: an exception, so that no experiment is blamed.
    raise HarnessError(f"The scorer ended without a score: {last_line(log)}", f"See {log}.")


def visible(gpu: int | None) -> dict[str, str]:
    """Which GPU a process sees: its own and no other."""
    if gpu is None:
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": str(gpu), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def last_line(path: Path) -> str:
    """Of an untrusted log, fit to be printed."""
    lines = tail_bytes(path, 4096).strip().splitlines()
    return one_line(lines[-1], 300) if lines else "it printed nothing"
