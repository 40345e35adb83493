"""Which sandbox this machine has: the highest level whose promises a probe inside it finds kept.

What is promised at each level is `PROMISED`; docs/trust.md explains it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import SandboxError
from harness.sandbox import bubblewrap, landlock, probe, seccomp
from harness.sandbox.bounds import Bounds
from harness.sandbox.process import Command, Supervised, environment
from harness.sandbox.view import View, for_training
from harness.sandbox.walls import NAMES, Sandbox
from harness.text import one_line, tail_bytes

PROMISED: Mapping[int, frozenset[str]] = {
    3: frozenset(probe.PROMISES),
    2: frozenset(probe.PROMISES) - {"sees nobody"},
    1: frozenset({"works"}),
}
PROBE = Path(probe.__file__)
PROBE_SECONDS = 60.0
"""CUDA may take long to initialise."""
SHARE = 0.85
"""Of the machine's memory that all its trials may hold."""
LEAST_MEMORY_MB = 1024


@dataclass(frozen=True, slots=True)
class Bait:
    """What lies outside the sandbox for the probe to try, as it is told of it."""

    secret: str
    """A file that the user may read and write."""
    homes: list[str]
    tcp: int
    udp: int
    abstract: str
    socket: str
    canary: int
    """A process of the user's, with a secret in its environment."""
    harness: int
    cuda: bool


def bounds(device: str, memory_mb: int, slots: int) -> Bounds:
    """Of a trial on a machine with so much memory and so many trials side by side.

    Fixed for a machine; generous beside what training at the scale needs, small beside what would fill a disk.
    """
    memory = max(LEAST_MEMORY_MB, int(SHARE * memory_mb / max(1, slots)))
    if device == "cpu":
        return Bounds(memory, processes=256, disk_mb=4096, files=20_000)
    # Compilers: one process a core, some threads each, and a cache of their output.
    return Bounds(memory, processes=4096, disk_mb=32_768, files=200_000)


def choose(
    environ: Mapping[str, str],
    limits: Bounds,
    *,
    unsandboxed: bool = False,
    devices: Sequence[str] = (),
    highest: int = 3,
) -> Sandbox:
    """The highest level that holds on this machine. Raises `SandboxError` if that is 1 and was not asked for.

    `devices`: nodes of a GPU, which must work inside.
    """
    view = for_training(environ)
    why: list[str] = []
    for level in (3, 2):
        if level <= highest:
            sandbox, reason = build(level, view, limits, environ)
            reason = reason or examine(sandbox, environ, devices)
            if not reason:
                return replace(sandbox, why="; ".join(why))
            why.append(f"level {level}, {reason}")
    if unsandboxed:
        return Sandbox(1, view, limits, why="; ".join(why))
    raise SandboxError(
        f"Code under test cannot be confined on this machine: {'; '.join(why)}.",
        f"{bubblewrap.INSTALL} Without it, --allow-unsandboxed runs code that models wrote as your user: "
        "docs/trust.md says what that means.",
    )


def build(level: int, view: View, limits: Bounds, environ: Mapping[str, str]) -> tuple[Sandbox, str]:
    """A sandbox that was not yet tried, and why there can be none, or ""."""
    program, reason = bubblewrap.find(environ.get("PATH")) if level == 3 else ("", "")
    if os.uname().machine not in seccomp.MACHINES:
        reason = f"there is no filter of system calls for {os.uname().machine}"
    elif level == 2 and landlock.abi() < landlock.OLDEST:
        reason = f"the kernel has Landlock ABI {landlock.abi()}, and {landlock.OLDEST} is needed"
    return Sandbox(level, view, limits, program), reason


def examine(sandbox: Sandbox, environ: Mapping[str, str], devices: Sequence[str] = ()) -> str:
    """Run the probe inside. "" if every promise of the level is kept, else the first that is not, and how."""
    found = promises(sandbox, environ, devices)
    broken = {name: how for name, how in found.items() if how and name in PROMISED[sandbox.level]}
    kind = NAMES[sandbox.level]
    told = (f"{kind} breaks the promise that code under test {name}: {how}" for name, how in broken.items())
    return next(told, "")


def promises(sandbox: Sandbox, environ: Mapping[str, str], devices: Sequence[str] = ()) -> dict[str, str]:
    """Each promise with "" if a process inside could not break it, else how it did."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-probe-") as folder, _bait(Path(folder), devices) as bait:
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        log = Path(folder, "probe.log")
        command = Command(
            argv=[sys.executable, "-S", str(PROBE), json.dumps(asdict(bait[0]))],
            cwd=scratch,
            output=log,
            env=environment(scratch, environ),
            reads=[PROBE],
            devices=devices,
        )
        try:
            asyncio.run(_run(command, sandbox))
            said = tail_bytes(log, 1 << 16)
        except (SandboxError, OSError) as error:
            return {"works": one_line(str(error), 300)}
        try:
            found: dict[str, str] = json.loads(said.strip().splitlines()[-1])
        except (ValueError, IndexError):
            return {"works": one_line(said, 300) or "it printed nothing"}
        return {**found, **bait[1].broken()}


async def _run(command: Command, sandbox: Sandbox) -> None:
    running = await Supervised.start(command, sandbox)
    try:
        await asyncio.wait_for(running.wait(), PROBE_SECONDS)
    except TimeoutError:
        raise SandboxError(f"the probe did not end in {PROBE_SECONDS:.0f} s") from None
    finally:
        await running.end()


@dataclass(frozen=True, slots=True)
class _Outside:
    """What the probe may have done, seen from outside."""

    listeners: Mapping[str, socket.socket]
    canary: subprocess.Popen[bytes]
    secret: Path
    content: str

    def broken(self) -> dict[str, str]:
        """Promises that were broken though the probe saw nothing of it."""
        found: dict[str, str] = {}
        for name, listener in self.listeners.items():
            with contextlib.suppress(BlockingIOError):
                listener.recv(1) if name == "UDP" else listener.accept()[0].close()
                found["reaches no network"] = f"it reached a listener outside by {name}"
        if self.canary.poll() is not None:
            found["signals nobody"] = "it ended a process outside"
        if not self.secret.exists() or self.secret.read_text() != self.content:
            found["changes nothing outside"] = "it changed a file outside"
        return found


@contextlib.contextmanager
def _bait(folder: Path, devices: Sequence[str]) -> Iterator[tuple[Bait, _Outside]]:
    (folder / "outside").mkdir()
    secret, content, abstract = folder / "outside" / "secret", secrets.token_hex(), secrets.token_hex()
    secret.write_text(content)
    with contextlib.ExitStack() as stack:
        inet, unix = socket.AF_INET, socket.AF_UNIX
        listeners = {
            "TCP": stack.enter_context(socket.socket(inet, socket.SOCK_STREAM)),
            "UDP": stack.enter_context(socket.socket(inet, socket.SOCK_DGRAM)),
            "an abstract socket": stack.enter_context(socket.socket(unix, socket.SOCK_STREAM)),
            "a socket's path": stack.enter_context(socket.socket(unix, socket.SOCK_STREAM)),
        }
        outside = os.open(folder / "outside", os.O_RDONLY)
        stack.callback(os.close, outside)
        path = f"/proc/self/fd/{outside}/socket"  # an address must be short, wherever the folder lies
        addresses: list[Any] = [("127.0.0.1", 0), ("127.0.0.1", 0), "\0" + abstract, path]
        for (name, listener), address in zip(listeners.items(), addresses, strict=True):
            listener.bind(address)
            listener.setblocking(False)
            if name != "UDP":
                listener.listen()
        # A pipe that closes with us ends it, whatever happens here.
        env = {"PATH": os.defpath, "SECRET": content}
        canary = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
        stack.callback(canary.communicate)
        tcp, udp = (listeners[name].getsockname()[1] for name in ("TCP", "UDP"))
        homes = [str(Path.home())] if Path.home() != Path("/") else []
        bait = Bait(
            secret=str(secret),
            homes=homes,
            tcp=tcp,
            udp=udp,
            abstract=abstract,
            socket=str(folder / "outside" / "socket"),
            canary=canary.pid,
            harness=os.getpid(),
            cuda=bool(devices),
        )
        yield bait, _Outside(listeners, canary, secret, content)
