"""The harness's own time an experiment: all but training, scoring and starting their processes.

    python benchmarks/overhead.py [EXPERIMENTS]

A real night in a temporary checkout (real git, ledger, search, judge, results.tsv) whose runner answers at once with
scores of a known response; what is left is the harness. Also the time that `--help` of each command takes.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from harness import hyperparameters, researchers, start
from harness.git import Repository
from harness.ledger import Ledger
from harness.loop import Loop, Parts
from harness.reading import ledger_path
from harness.settings import Settings
from harness.types import Arena, Experiment, Job, Outcome, Result, Watch

ROOT = Path(__file__).parents[1]
COMMANDS = ("run", "leaderboard", "show", "score", "doctor")


class Immediate:
    """A runner that trains nothing: the score follows from the width of the model, and a little from the seed."""

    slots = 2

    async def run(self, job: Job, watch: Watch) -> Result:
        values = {item.name: item.value for item in hyperparameters.read(job.source, "cpu")}
        score = 2.0 - 0.001 * float(values["ASPECT"]) + 0.002 * (job.index % 2)
        return Result(Outcome.OK, val_bpb=score, training_seconds=30.0, tokens=1, steps=1, params=1)


class Silent:
    """A view that notes when each experiment was judged."""

    def __init__(self) -> None:
        self.judged: list[float] = []

    def experiment_judged(self, experiment: Experiment) -> None:
        self.judged.append(time.perf_counter())

    def __getattr__(self, name: str):
        return lambda *arguments: None


def night(count: int) -> list[float]:
    """Seconds from one verdict to the next."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("train.py", "prepare.py", "program.md"):
            (root / name).write_text((ROOT / name).read_text())
        subprocess.run(["git", "init", "-q", folder], check=True)
        settings = replace(Settings(root=root, tag="own"), experiments=count)
        ruler = (root / "prepare.py").read_text()
        arena = Arena("none", "cpu", "cpu:30", 1, "r", "none", "none", 1)
        with Ledger.open(ledger_path(root)) as ledger:
            repository = Repository.open(root)
            start.begin(start.Plan(settings, None, (), ruler, None, {}), arena, ledger, repository)  # type: ignore[arg-type]
            view = Silent()
            researcher = researchers.create("search", settings)
            parts = Parts(settings, arena, ruler, ledger, repository, Immediate(), researcher, view)
            asyncio.run(Loop(parts).night())
    return [later - earlier for earlier, later in zip(view.judged, view.judged[1:], strict=False)]


def help_seconds(command: str) -> float:
    """Median of five starts."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", f"harness.{command}", "--help"], check=True, capture_output=True, cwd=ROOT
        )
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    times = night(count)
    last = times[-count // 4 :]
    print(f"own time an experiment: median {statistics.median(times):.3f} s over {len(times)} experiments")
    print(f"                        median {statistics.median(last):.3f} s over the last {len(last)}")
    for command in COMMANDS:
        print(f"--help of {command}: {help_seconds(command):.2f} s")


if __name__ == "__main__":
    main()
