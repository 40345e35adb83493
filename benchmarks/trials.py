"""Trains settings of train.py at scale `cpu` and writes one row each: what the surrogate is fitted to.

    python benchmarks/trials.py 160 --out benchmarks/data/cpu_trials.csv

Goes on where it stopped. Each setting has a seed of its own; the first few rows are the incumbent with further
seeds, which tell the noise.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import tempfile
from pathlib import Path

from collect import designs

from harness import corpora, hyperparameters, machine
from harness.hyperparameters import Value
from harness.ruler import Ruler
from harness.runners.local import LocalRunner
from harness.scoring.bench import Bench
from harness.start import corpora_cache, shelter
from harness.types import Job

ROOT = Path(__file__).parents[1]
REPLICATES = 8
MEASURED = ("outcome", "val_bpb", "training_seconds", "total_seconds", "tokens", "steps", "params")


def settings(source: str, count: int) -> list[dict[str, Value]]:
    """The incumbent eight times, then so many designs."""
    found = designs(source, "cpu", count - REPLICATES + 1, seed=0)
    return [found[0]] * REPLICATES + found[1:]


async def collect(count: int, out: Path) -> None:
    source, ruler = ((ROOT / name).read_text() for name in ("train.py", "prepare.py"))
    scale = Ruler.read(ruler).scale("cpu")
    corpus = corpora.prepare("python", scale.vocab, corpora_cache(os.environ))
    device = machine.pick_device("cpu")
    slots = machine.slots(None, device)
    names = [item.name for item in hyperparameters.read(source, "cpu") if item.range is not None]
    done = {row["number"] for row in csv.DictReader(out.open())} if out.exists() else set()
    with tempfile.TemporaryDirectory() as scratch, out.open("a", newline="") as file:
        writer = csv.DictWriter(file, ["number", "seed", *MEASURED, *names])
        if not done:
            writer.writeheader()
        runner = LocalRunner(
            Bench(corpus, "python", scale, "cpu", "cpu", os.environ, shelter(device, len(slots), os.environ)),
            scale.budget,
            slots,
            Path(scratch, "scratch"),
            "trials",
        )

        async def one(number: int, values: dict[str, Value]) -> None:
            text = hyperparameters.edit(source, "cpu", values)
            folder = Path(scratch, f"{number}")
            result = await runner.run(Job("trials", number, 1, 0, number, text, ruler, folder), lambda progress: None)
            measured = {name: getattr(result, name) for name in MEASURED}
            writer.writerow({"number": number, "seed": number, **measured, **{n: values[n] for n in names}})
            file.flush()
            print(number, result.outcome, result.val_bpb, result.reason, flush=True)

        todo = [(n, v) for n, v in enumerate(settings(source, count)) if str(n) not in done]
        await asyncio.gather(*(one(number, values) for number, values in todo))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/data/cpu_trials.csv")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(collect(asked.count, asked.out))


if __name__ == "__main__":
    main()
