"""How long the leaderboard of a long series takes: python benchmarks/leaderboard.py [EXPERIMENTS]."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.ledger import Ledger
from harness.types import Arena, Outcome, Result, Verdict

ARENA = Arena("python-1f3a", "cpu", "cpu:30", 1, "r0", "some device", "2.13.0", 1)


def build(path: Path, count: int) -> None:
    """Write so many experiments through the ledger itself, one trial each, one in twenty failed."""
    rng = random.Random(0)
    with Ledger.open(path) as ledger:
        ledger.start_series("night", ARENA, {}, "0" * 40)
        for i in range(count):
            parent = None if i == 0 else 0
            ledger.open_experiment("night", ARENA.key, parent, f"change {i} of a width", "It may help.", "", "search")
            ledger.add_attempt("night", i, f"{i:040x}", f"WIDTH = {i}\n", f"{i}")
            ledger.start_trial("night", i, 1, 0, 1)
            score = rng.gauss(1.75, 0.01) if i % 20 != 19 else None
            outcome = Outcome.CRASH if score is None else Outcome.OK
            result = Result(
                outcome, "" if score else "ValueError", score, 30.0, 36.0, 5.0, 1_600_000, 800, 900.0, 1_200_000
            )
            ledger.finish_trial("night", i, 1, 0, result)
            ledger.judge("night", i, Verdict.FAILED if score is None else Verdict.DISCARD, "as it fell", 0.0)


def main() -> None:
    """Build, measure, print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"Leaderboard of {count} experiments: seconds of the whole command, the best of three.")
    # In memory where that can be: building waits for the disk 50,000 times, and reading is what is measured.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="autoresearch-benchmark-", dir=place) as folder:
        started = time.perf_counter()
        build(Path(folder, "results", "ledger.db"), count)
        print(f"{'ledger built':<14}{time.perf_counter() - started:8.2f}")
        for option in ([], ["--json"], ["--tsv"]):
            print(f"{' '.join(option) or 'table':<14}{min(measure(folder, option) for _ in range(3)):8.2f}")


def measure(folder: str, options: list[str]) -> float:
    """Seconds of one run of the command, start of Python included."""
    root = str(Path(__file__).parents[1])
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "harness.leaderboard", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
