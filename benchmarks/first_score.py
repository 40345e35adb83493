"""How long a newcomer waits: from the first command, with nothing prepared, to the baseline's first score.

    python benchmarks/first_score.py

A fresh clone and an empty cache, the installed packages as they are. Then what of a `cpu` trial is not training:
starting Python and torch, saving, scoring.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.ledger import Ledger

ROOT = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "a clone")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environ = {**os.environ, "AUTORESEARCH_CACHE": str(Path(folder, "cache"))}
        argv = [sys.executable, "-m", "harness.run", "--experiments", "0", "--workers", "1", "--device", "cpu"]
        started = time.perf_counter()
        with subprocess.Popen(argv, cwd=clone, env=environ, stdout=subprocess.PIPE, text=True) as night:
            assert night.stdout
            for line in night.stdout:
                after = time.perf_counter() - started
                if " opened 0 " in line:
                    print(f"corpus prepared and baseline committed after {after:.1f} s")
                if " ended 0 " in line:
                    print(f"first score after {after:.1f} s", flush=True)
                    break
            for _ in night.stdout:
                pass
        with Ledger.open(clone / "results/ledger.db", readonly=True) as ledger:
            trials = [t.result for t in ledger.experiments(ledger.tags()[-1])[0].trials if t.result]
    for result in trials:
        assert result.training_seconds is not None
        rest = result.total_seconds - result.training_seconds
        print(
            f"trial: {result.total_seconds:.1f} s in all, {result.training_seconds:.1f} s training, {rest:.1f} s not"
            f" (of it {result.scoring_seconds:.1f} s scoring with its processes); val_bpb {result.val_bpb:.4f}"
        )


if __name__ == "__main__":
    main()
