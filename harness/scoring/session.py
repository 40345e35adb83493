"""One checkpoint scored: scorer and model servers are connected, and the answer is read."""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.machine import Gpu
from harness.sandbox.process import Module
from harness.scoring.artifact import BadArtifact, parameters
from harness.scoring.bench import Bench, visible
from harness.scoring.servers import Servers
from harness.text import one_line, tail_bytes
from harness.types import Outcome, Score

SCORER = 2
"""Version of the scorer: part of the arena. Raise it with every change that can move a score."""
LINE_BYTES = 1 << 16
EXCEEDED = {"memory": Outcome.OOM, "disk": Outcome.DISK, "processes": Outcome.CRASH}
"""Outcome of a trial that passed one of the sandbox's bounds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no score."""

    outcome: Outcome
    reason: str


async def score(
    bench: Bench,
    folder: Path,
    scratch: Path,
    cores: Sequence[int] = (),
    gpu: Gpu | None = None,
    limit: float | None = None,
    warm: Servers | None = None,
    work: float = math.inf,
) -> Score | Failure:
    """Score the checkpoint that lies in `folder`: model.safetensors, config.json, train.py, prepare.py.

    `limit` in seconds, of score and audit together; None: as long as it takes. `warm` servers are used up, whatever
    happens; without them, or if they have died, others are started. `work`: seconds that both servers together may
    work once they have the model, of CPU time on a CPU.
    The model servers work on copies in `scratch`. `server.log`, `audit.log` and `scorer.log` are left in `folder`; the
    first two may hold text of the split and are shown to no researcher.
    """
    started = time.monotonic()
    try:
        params = parameters(folder / "model.safetensors")
    except (BadArtifact, OSError) as error:
        if warm is not None:
            await warm.end()
        return Failure(Outcome.BAD_ARTIFACT, str(error))
    servers = await _ready(warm, bench, scratch, cores, gpu)
    try:
        await servers.begin(folder)
        answer = await _ask(bench, folder, servers, cores, gpu, limit)
    finally:
        ended = await servers.end()
        _keep_logs(servers, folder)
    if "val_bpb" in answer and (worked := servers.worked()) > work:
        told = f"building the model and answering took its servers {worked:.1f} s; {work:g} s are allowed"
        return Failure(Outcome.TIMEOUT, told)
    if "val_bpb" in answer:
        return Score(seconds=time.monotonic() - started, params=params, **answer)
    for exit in ended:
        if exit.exceeded:
            return Failure(EXCEEDED[exit.exceeded.what], f"in scoring, {exit.exceeded.figures}")
    if any(exit.code == -signal.SIGKILL and not exit.cut for exit in ended):
        return Failure(Outcome.OOM, "the model server was killed, as the system does when memory runs out")
    reason: str = answer["reason"]
    if answer.get("blind"):  # nothing of the split was known to it, so its words may be shown
        reason += f": {last_line(folder / 'server.log')}"
    return Failure(Outcome(answer["outcome"]), reason)


async def _ready(warm: Servers | None, bench: Bench, scratch: Path, cores: Sequence[int], gpu: Gpu | None) -> Servers:
    """The warm servers, or others if they are gone: what killed them was not the model."""
    if warm is not None:
        if warm.waiting:
            return warm
        await warm.end()
    return await Servers.warm(bench, scratch, cores, gpu)


async def _ask(
    bench: Bench, folder: Path, servers: Servers, cores: Sequence[int], gpu: Gpu | None, limit: float | None
) -> dict[str, Any]:
    sockets = [servers.first.sock.fileno(), servers.second.sock.fileno()]
    spec = {
        "sockets": sockets,
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
        fds=sockets,
        cores=cores,
    )
    try:
        async with asyncio.timeout(limit):
            async for line in scorer.lines():
                if line.get("event") != "over":
                    return line
                await servers.change()
    except TimeoutError:
        return {"outcome": "timeout", "reason": f"scoring took longer than {limit:.0f} s: the model is too slow"}
    finally:
        code = await scorer.end()
    if code < 0:
        return {"outcome": "lost", "reason": "the scorer was killed, which the system does when memory runs out"}
    # A fault of ours, not of the model: an exception, so that no experiment is blamed.
    raise HarnessError(f"The scorer ended without a score: {last_line(log)}", f"See {log}.")


def last_line(path: Path) -> str:
    """Of an untrusted log, fit to be printed."""
    lines = tail_bytes(path, LINE_BYTES).strip().splitlines()
    return one_line(lines[-1], 300) if lines else "it printed nothing"


def _keep_logs(servers: Servers, folder: Path) -> None:
    for server, name in ((servers.first, "server.log"), (servers.second, "audit.log")):
        if server.log.is_file():
            shutil.copyfile(server.log, folder / name)
        else:  # its supervisor was killed before it could write
            (folder / name).write_bytes(b"")
