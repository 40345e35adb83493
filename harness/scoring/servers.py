"""The model servers of one scoring, from the harness's side: started early, told to begin, timed and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.clock import TreeClock
from harness.machine import Gpu
from harness.sandbox.process import Command, Exit, Supervised, environment
from harness.scoring import wire
from harness.scoring.bench import Bench, visible

SERVER = Path(__file__).with_name("server.py")
CHECKPOINT = ("train.py", "prepare.py", "config.json", "model.safetensors")


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
        try:
            return await self.process.end()
        finally:
            await asyncio.to_thread(self.sock.close)  # with whatever descriptors were sent to it


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


def _raised(exit: Exit | BaseException) -> Exit:
    if isinstance(exit, BaseException):
        raise exit
    return exit


def _copy(folder: Path, room: Path) -> None:
    for name in CHECKPOINT:
        shutil.copyfile(folder / name, room / name)
