"""One checkpoint scored: starts the scorer and two model servers, connects them, and reads the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.clock import TreeClock
from harness.corpora import Corpus
from harness.corpora.source import Split
from harness.errors import HarnessError
from harness.machine import Gpu
from harness.ruler import Scale
from harness.sandbox.process import Command, Exit, Module, Supervised, environment
from harness.sandbox.walls import Sandbox
from harness.scoring import wire
from harness.scoring.artifact import BadArtifact, parameters
from harness.text import one_line, tail_bytes
from harness.types import Outcome, Score

SCORER = 2
"""Version of the scorer: part of the arena. Raise it with every change that can move a score."""
SERVER = Path(__file__).with_name("server.py")
CHECKPOINT = ("train.py", "prepare.py", "config.json", "model.safetensors")
LINE_BYTES = 1 << 16
EXCEEDED = {"memory": Outcome.OOM, "disk": Outcome.DISK, "processes": Outcome.CRASH}
"""Outcome of a trial that passed one of the sandbox's bounds."""


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
    sandbox: Sandbox
    """What stands around each process under test."""
    split: Split = "val"


class Stopwatch:
    """How long a server has worked: CPU seconds of its tree, or on a GPU wall seconds."""

    def __init__(self, root: int, device: str) -> None:
        self._root, self._device = root, device
        self._now: Callable[[], float] | None = None
        self._began = self.seconds = 0.0

    def start(self) -> None:
        self._now = TreeClock(self._root).spent if self._device == "cpu" else time.monotonic
        self._began = self._now()

    def stop(self) -> None:
        """Only the first call counts."""
        if self._now is not None:
            self.seconds, self._now = self._now() - self._began, None


@dataclass(frozen=True, slots=True)
class Server:
    """One model server, waiting for its START or past it."""

    process: Supervised
    sock: socket.socket
    """The scorer's end."""
    room: Path
    """Its working directory, empty until it is filled."""
    stopwatch: Stopwatch

    @property
    def log(self) -> Path:
        return self.room.with_suffix(".log")

    @property
    def waiting(self) -> bool:
        """It is there and has said nothing, as is right before START."""
        try:
            self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def begin(self) -> None:
        """Have it build what lies in its room."""
        self.stopwatch.start()
        with contextlib.suppress(OSError):  # if it is dead, the scorer finds out
            self.sock.sendall(wire.START.pack(wire.MAGIC))

    async def end(self) -> Exit:
        """End it, whatever it is at. May be called again."""
        self.stopwatch.stop()
        ended = await self.process.end()
        await asyncio.to_thread(self.sock.close)  # with whatever descriptors were sent to it
        return ended


@dataclass(frozen=True, slots=True)
class Servers:
    """The two servers of one scoring: one gives the score, a fresh one is audited once the first has ended."""

    first: Server
    second: Server

    @classmethod
    async def warm(cls, bench: Bench, scratch: Path, cores: Sequence[int] = (), gpu: Gpu | None = None) -> Servers:
        """Start both early, with empty rooms in `scratch`: they import torch and wait. `end` them if no score follows.

        `scratch` must be a folder that no other process under test can write to: what lies in a room is imported.
        """
        first = await _serve(bench, scratch, cores, gpu)
        try:
            return cls(first, await _serve(bench, scratch, cores, gpu))
        except BaseException:
            await first.end()
            raise

    @property
    def waiting(self) -> bool:
        return self.first.waiting and self.second.waiting

    def worked(self) -> float:
        """Seconds of both, once they have ended."""
        return self.first.stopwatch.seconds + self.second.stopwatch.seconds

    async def begin(self, folder: Path) -> None:
        """Copy the checkpoint into both rooms, and have the first server build its model."""
        await asyncio.gather(*(asyncio.to_thread(_copy, folder, server.room) for server in (self.first, self.second)))
        self.first.begin()

    async def change(self) -> None:
        """End the first server; then the second may begin."""
        await self.first.end()
        self.second.begin()

    async def end(self) -> tuple[Exit, Exit]:
        """End both, also if one of them fails to. May be called again."""
        ended = await asyncio.gather(self.first.end(), self.second.end(), return_exceptions=True)
        first, second = (_raised(exit) for exit in ended)
        return first, second


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


async def _serve(bench: Bench, scratch: Path, cores: Sequence[int], gpu: Gpu | None) -> Server:
    room = Path(tempfile.mkdtemp(prefix="server-", dir=scratch))
    ours, theirs = socket.socketpair()
    spec = {
        "socket": theirs.fileno(),
        "device": bench.device,
        "threads": max(1, len(cores)),
        "wire": str(Path(wire.__file__)),
    }
    command = Command(
        argv=[sys.executable, str(SERVER), json.dumps(spec)],
        cwd=room,
        output=room.with_suffix(".log"),
        env=environment(room, bench.environ, AUTORESEARCH_SCALE=bench.scale_name, **visible(gpu)),
        cores=cores,
        fds=[theirs.fileno()],
        reads=[SERVER, Path(wire.__file__)],
        devices=gpu.nodes if gpu else (),
    )
    with theirs:  # closed here, so that each side sees the other hang up
        try:
            process = await Supervised.start(command, bench.sandbox)
            return Server(process, ours, room, Stopwatch(process.pid, bench.device))
        except BaseException:
            ours.close()
            raise


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


def visible(gpu: Gpu | None) -> dict[str, str]:
    """Which GPU a process sees: its own and no other."""
    return {"CUDA_VISIBLE_DEVICES": gpu.uuid if gpu else ""}


def last_line(path: Path) -> str:
    """Of an untrusted log, fit to be printed."""
    lines = tail_bytes(path, LINE_BYTES).strip().splitlines()
    return one_line(lines[-1], 300) if lines else "it printed nothing"


def _raised(exit: Exit | BaseException) -> Exit:
    if isinstance(exit, BaseException):
        raise exit
    return exit


def _copy(folder: Path, room: Path) -> None:
    for name in CHECKPOINT:
        shutil.copyfile(folder / name, room / name)


def _keep_logs(servers: Servers, folder: Path) -> None:
    for server, name in ((servers.first, "server.log"), (servers.second, "audit.log")):
        if server.log.is_file():
            shutil.copyfile(server.log, folder / name)
        else:  # its supervisor was killed before it could write
            (folder / name).write_bytes(b"")
