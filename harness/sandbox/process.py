"""Start, await and end a process, from the harness's side.

Two kinds: an untrusted `Command` runs below a supervisor; a trusted module of the harness runs by itself. Both
hold the reading end of a lifeline (their standard input) and end when the harness closes it or dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import marshal
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import SandboxError
from harness.libraries import ROOTS
from harness.sandbox.walls import Sandbox
from harness.sandbox.watch import Exceeded
from harness.text import one_line, tail_bytes

SUPERVISOR = "from harness.sandbox.supervisor import main; main()"
"""Run so, its compiled form is used, and nothing is imported for it to be found."""
PACKAGES = str(Path(__file__).parents[2])
"""The harness that is running, wherever the user stands."""
END_SECONDS = 15.0
"""How long one process may take to end."""
TREE_SECONDS = 75.0
"""How long a tree may take; a supervisor sweeps for sixty."""
PASSED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "CUDA_HOME", "CUDA_PATH", "TRITON_PTXAS_PATH")
"""All that an untrusted process sees of our environment: where libraries are, and no more."""


@dataclass(frozen=True, slots=True)
class Command:
    """An untrusted command: what it may see and use."""

    argv: Sequence[str]
    cwd: Path
    """Its scratch folder: the one place that it may write to."""
    output: Path
    """Where its standard output and error go, capped."""
    env: Mapping[str, str]
    cores: Sequence[int] = ()
    """Cores it is pinned to; empty: all."""
    fds: Sequence[int] = ()
    """Descriptors it inherits, under their own numbers."""
    reads: Sequence[Path] = ()
    """Files that it is shown beside what every command is."""
    devices: Sequence[str] = ()
    """Device nodes of its GPU."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended."""

    code: int | None
    """Exit code, or minus the number of the signal that ended it; None if the supervisor itself was lost."""
    cut: bool
    """The harness ended it."""
    max_rss_mb: float
    exceeded: Exceeded | None = None
    """The bound for which the supervisor ended it."""


def environment(scratch: Path, source: Mapping[str, str], **extra: str) -> dict[str, str]:
    """What an untrusted process gets as environment: an allowlist, and a home of its own in `scratch`."""
    far = os.pathsep.join(far_libraries())
    return {
        **allowed(source),
        **({"PYTHONPATH": far} if far else {}),
        "HOME": str(scratch),
        "LOGNAME": "trial",  # asked for by compilers' caches; there is no list of users to find a name in
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(scratch / ".cache"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        # Large buffers are kept instead of handed back to the kernel at each step: up to 17 % more tokens/s.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        **extra,
    }


def allowed(source: Mapping[str, str]) -> dict[str, str]:
    """What any child may see of an environment."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **{name: source[name] for name in PASSED if name in source}}


@functools.cache
def far_libraries() -> tuple[str, ...]:
    """Folders of what a trial imports, where Python would not look by itself: a user's own, or from PYTHONPATH."""
    found = [importlib.util.find_spec(name) for name in ROOTS]
    folders = dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin)
    near = {os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return tuple(folder for folder in folders if os.path.realpath(folder) not in near)


class Supervised:
    """A running untrusted command."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process, self._output = process, output
        self._exit: asyncio.Task[Exit] = asyncio.create_task(self._collect())

    @classmethod
    async def start(cls, command: Command, sandbox: Sandbox) -> Supervised:
        """Raises `SandboxError` if no process can be started."""
        spec = {
            "argv": list(command.argv),
            "cwd": str(command.cwd),
            "output": str(command.output),
            "env": dict(command.env),
            "cores": list(command.cores),
            "fds": list(command.fds),
            "devices": list(command.devices),
            "level": sandbox.level,
            "walls": sandbox.walls(command.cwd, command.reads, command.devices),
            "bounds": asdict(sandbox.bounds),
            "limits": sandbox.bounds.of_each(gpu=bool(command.devices)),
        }
        argv = [sys.executable, "-S", "-P", "-c", SUPERVISOR]
        with open(os.devnull, "wb") as nowhere:
            process = await _spawn(argv, {**allowed({}), "PYTHONPATH": PACKAGES}, command.fds, nowhere.fileno())
        assert process.stdin is not None
        orders = marshal.dumps(spec)
        process.stdin.write(len(orders).to_bytes(8) + orders)
        return cls(process, command.output)

    @property
    def pid(self) -> int:
        """Of the supervisor: the root of the tree whose CPU time is counted."""
        return self._process.pid

    async def wait(self) -> Exit:
        """Until the command has ended and its tree is swept. May be awaited by several, and cancelled.

        Raises `SandboxError` if its walls could not be put up, so that it never ran.
        """
        return await asyncio.shield(self._exit)

    async def end(self) -> Exit:
        """End the tree now. Safe to call at any time, also after it has ended."""
        _hang_up(self._process)
        try:
            return await asyncio.wait_for(asyncio.shield(self._exit), TREE_SECONDS)
        except TimeoutError:
            self._process.kill()
            return await self._exit

    async def _collect(self) -> Exit:
        assert self._process.stdout is not None
        written = await self._process.stdout.read()
        await self._process.wait()
        _hang_up(self._process)
        try:
            report = marshal.loads(written)
        except (EOFError, ValueError, TypeError):  # it was killed
            return Exit(None, cut=False, max_rss_mb=0.0)
        if report["failed"]:
            said = one_line(tail_bytes(self._output, 2000), 500)
            raise SandboxError(f"The sandbox could not be put up: {said}", "python -m harness.doctor says what holds.")
        exceeded = Exceeded(*report["exceeded"]) if report["exceeded"] else None
        return Exit(report["code"], report["cut"], report["max_rss_mb"], exceeded)


class Module:
    """A running module of the harness that speaks JSON lines on its standard output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls,
        module: str,
        spec: Mapping[str, Any],
        *,
        environ: Mapping[str, str],
        errors: Path,
        extra: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
        cores: Sequence[int] = (),
    ) -> Module:
        """`python -m MODULE JSON`, with the given descriptors, on the given cores.

        Of `environ` it gets the allowlist, of `extra` all; what it writes to standard error goes to a file.
        """
        # Whatever lies in the folder where the user stands (-P).
        path = os.pathsep.join([PACKAGES, *far_libraries()])
        env = {**allowed(environ), **(extra or {}), "PYTHONPATH": path}
        argv = [sys.executable, "-P", "-m", module, json.dumps(spec)]
        with errors.open("wb") as log:
            process = await _spawn(argv, env, fds, stderr=log.fileno())
        if cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, cores)
        return cls(process)

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Each line it writes, to its end."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.endswith(b"\n"):  # it was killed in mid-word
                return
            yield json.loads(line)

    def hang_up(self) -> None:
        """Close its lifeline: it ends when it has said what it has to say."""
        _hang_up(self._process)

    async def end(self) -> int:
        """Close its lifeline and wait; its exit code."""
        _hang_up(self._process)
        try:
            return await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


async def _spawn(
    argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int], stderr: int
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            pass_fds=tuple(fds),
            env=env,
            process_group=0,  # Ctrl-C is for the harness, which decides what it means
        )
    except OSError as error:
        raise SandboxError(f"cannot start {argv[0]}: {error}", "Free memory or processes.") from error


def _hang_up(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
