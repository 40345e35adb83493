"""What it costs to start a command in each sandbox of this machine, and by which part.

    python benchmarks/sandbox.py

Every round starts each kind once, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from harness import machine
from harness.sandbox import levels
from harness.sandbox.process import Command, Supervised, environment
from harness.sandbox.view import for_training
from harness.sandbox.walls import Sandbox

ROUNDS = 41
TRUE = "/bin/true"


async def plainly(folder: Path) -> None:
    await (await asyncio.create_subprocess_exec(TRUE)).wait()


def behind(sandbox: Sandbox) -> Callable[[Path], Awaitable[None]]:
    async def start(folder: Path) -> None:
        command = Command(argv=[TRUE], cwd=folder, output=folder / "log", env=environment(folder, os.environ))
        ended = await (await Supervised.start(command, sandbox)).wait()
        assert ended.code == 0, ended

    return start


async def measure(kinds: dict[str, Callable[[Path], Awaitable[None]]]) -> dict[str, list[float]]:
    """Milliseconds of each round, by kind."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, start in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                await start(Path(folder))
                found[name].append(1000 * (time.perf_counter() - began))
    return found


def main() -> None:
    """Print a line a level: median, lowest and highest."""
    limits = levels.bounds("cpu", machine.memory_mb(), 1)
    view = for_training(os.environ)
    kinds: dict[str, Callable[[Path], Awaitable[None]]] = {"plain": plainly}
    for level in (1, 2, 3):
        sandbox, reason = levels.build(level, view, limits, os.environ)
        if reason:
            print(f"level {level}: {reason}")
        else:
            kinds[f"level {level}"] = behind(sandbox)
    print(f"{'/bin/true':<12}{'median':>8}{'lowest':>8}{'highest':>8}   ms, {ROUNDS} rounds")
    for name, times in asyncio.run(measure(kinds)).items():
        print(f"{name:<12}{statistics.median(times):>8.1f}{min(times):>8.1f}{max(times):>8.1f}")
    began = time.perf_counter()
    chosen = levels.choose(os.environ, limits, unsandboxed=True)
    print(f"choosing {chosen}: {1000 * (time.perf_counter() - began):.0f} ms, once a run")
    versions = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"{machine.cpu_name()}, Linux {os.uname().release}, {versions}")


if __name__ == "__main__":
    main()
