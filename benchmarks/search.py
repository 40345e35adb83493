"""`search` against random search, on a response fitted to real trials.

    python benchmarks/search.py --repeats 10 --trials 60

Each researcher is asked through the real interface, over an in-memory past, and judged by the harness's own judge.
Beside random search stand two more: random changes of one to four hyperparameters of the incumbent, and Optuna's TPE
alone on as many. Counted are trainings, not proposals; the baseline's are not counted. Shown is the noiseless score
of the incumbent: median, and the second lowest and second highest of the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from surrogate import DATA, ROOT, Surrogate, load

from harness import hyperparameters
from harness.errors import NoProposal
from harness.hyperparameters import Value
from harness.judge import judge, spread
from harness.researchers.search import Search, tpe
from harness.researchers.search.evidence import Reader
from harness.researchers.search.space import Space, at
from harness.types import Attempt, Experiment, History, Outcome, Proposal, Researcher, Result, Trial, Verdict

BASELINE_SEEDS, CANDIDATE_SEEDS = 3, 2


class Response(Protocol):
    """What stands in for training."""

    space: Space
    noise: float

    def truth(self, values: Mapping[str, Value]) -> float: ...

    def fails(self, values: Mapping[str, Value]) -> bool: ...


@dataclass(frozen=True)
class Step:
    """The incumbent after some trainings."""

    trainings: int
    truth: float


class Random:
    """Settings drawn evenly over the ranges: all hyperparameters at once, or one to four of the incumbent."""

    def __init__(self, scale: str, seed: int, few: bool) -> None:
        self.name = "random"
        self._scale = scale
        self._few = few
        self._random = np.random.default_rng(seed)

    async def propose(self, history: History) -> Proposal:
        """One random setting."""
        incumbent = history.incumbent()
        source = history.source(incumbent.id)
        items = Space.of(hyperparameters.read(source, self._scale)).items
        count = int(self._random.integers(1, 5)) if self._few else len(items)
        picked = self._random.choice(len(items), min(count, len(items)), replace=False)
        values = {items[index].name: at(items[index], float(self._random.random())) for index in picked}
        text = hyperparameters.edit(source, self._scale, values)
        return Proposal("random", "", text, incumbent.id)


class Night:
    """An in-memory past, and the judge over a response."""

    def __init__(self, source: str, scale: str, response: Response, repeat: int) -> None:
        self.tag = f"bench{repeat}"
        self.scale = scale
        self.trainings = 0
        self._response = response
        self._repeat = repeat
        self._experiments: list[Experiment] = []
        self._sources: list[str] = []
        self._values: list[dict[str, Value]] = []
        self._prints: dict[str, int] = {}
        self._best = 0
        self._open(Proposal("Baseline", "", source, 0))
        for _ in range(BASELINE_SEEDS):
            self._train(0)
        self._close(0, Verdict.KEEP)
        self._spread = spread(self._experiments[0].scores)
        self.trainings = 0

    def experiments(self) -> list[Experiment]:
        """The past."""
        return list(self._experiments)

    def incumbent(self) -> Experiment:
        """The best kept."""
        return self._experiments[self._best]

    def source(self, experiment: int) -> str:
        """A text."""
        return self._sources[experiment]

    def tried(self, source: str) -> int | None:
        """Who had it."""
        return self._prints.get(hyperparameters.fingerprint(source))

    @property
    def truth(self) -> float:
        """The noiseless score of the incumbent."""
        return self._response.truth(self._values[self._best])

    def judge(self, proposal: Proposal) -> None:
        """Train a proposal once or twice, and keep it or not."""
        number = self._open(proposal)
        parent = self._experiments[self._best]
        while True:
            if not self._train(number):
                return self._close(number, Verdict.FAILED)
            judgement = judge(self._experiments[number].scores, parent.scores, self._spread, CANDIDATE_SEEDS)
            if judgement.verdict is not None:
                break
        self._close(number, judgement.verdict)
        if judgement.verdict is Verdict.KEEP:
            self._best = number

    def _open(self, proposal: Proposal) -> int:
        number = len(self._experiments)
        mark = hyperparameters.fingerprint(proposal.source)
        parent = self._best if number else None
        attempt = Attempt(1, f"{number:040x}", mark)
        self._experiments.append(
            Experiment(
                *(self.tag, number, "arena", parent, proposal.title, proposal.hypothesis, proposal.category),
                *("bench", 0.0, proposal.expected_gain),
                attempts=(attempt,),
            )
        )
        self._sources.append(proposal.source)
        items = hyperparameters.read(proposal.source, self.scale)
        self._values.append({item.name: item.value for item in items})
        self._prints.setdefault(mark, number)
        return number

    def _train(self, number: int) -> bool:
        self.trainings += 1
        before = self._experiments[number]
        index = len(before.trials)
        values = self._values[number]
        if self._response.fails(values):
            result = Result(Outcome.CRASH, "it failed")
        else:
            result = Result(Outcome.OK, val_bpb=self._response.truth(values) + self._noise(number, index))
        trial = Trial(number, 1, index, index, 0.0, result)
        self._experiments[number] = replace(before, trials=(*before.trials, trial))
        return result.ok

    def _noise(self, number: int, index: int) -> float:
        """Of the repeat, the text and the seed alone: two researchers who try one text see one score."""
        mark = f"{self._repeat} {self._experiments[number].attempts[0].source_hash} {index}"
        seed = int.from_bytes(hashlib.sha256(mark.encode()).digest()[:8], "big")
        return float(np.random.default_rng(seed).normal(0, self._response.noise))

    def _close(self, number: int, verdict: Verdict) -> None:
        self._experiments[number] = replace(self._experiments[number], verdict=verdict)


async def curve(night: Night, researcher: Researcher, trainings: int) -> list[Step]:
    """The incumbent's noiseless score after each experiment, until the trainings are used."""
    steps = [Step(0, night.truth)]
    while night.trainings < trainings:
        try:
            night.judge(await researcher.propose(night))
        except NoProposal:
            break
        steps.append(Step(night.trainings, night.truth))
    return steps


def at_training(steps: list[Step], n: int) -> float:
    """The score of the incumbent once `n` trainings are done."""
    return [step.truth for step in steps if step.trainings <= n][-1]


class Tpe:
    """Optuna's TPE alone: one to four hyperparameters of the incumbent, drawn evenly, at its suggestion."""

    name = "tpe"

    def __init__(self, scale: str, seed: int) -> None:
        self._reader = Reader(scale)
        self._random = np.random.default_rng(seed)
        self._few = Random(scale, seed, few=True)
        self._scale = scale

    async def propose(self, history: History) -> Proposal:
        """One suggestion; random below the number of experiments that TPE needs."""
        incumbent = history.incumbent()
        source = history.source(incumbent.id)
        space = Space.of(hyperparameters.read(source, self._scale))
        present: dict[str, Value] = {item.name: item.value for item in space.items}
        points = self._reader.points(history)
        for _ in range(20):
            names = self._random.choice(list(present), int(self._random.integers(1, 5)), replace=False).tolist()
            asked = tpe.suggestions(space, points, present, [names], int(self._random.integers(2**31)))
            changed = {n: v for n, v in (asked[0] if asked else present).items() if v != present[n]}
            text = hyperparameters.edit(source, self._scale, changed)
            if changed and history.tried(text) is None:
                return Proposal("tpe", "", text, incumbent.id)
        return await self._few.propose(history)


RESEARCHERS: dict[str, Callable[[str, int], Researcher]] = {
    "search": Search,
    "random": lambda scale, seed: Random(scale, seed, few=False),
    "random, one to four": lambda scale, seed: Random(scale, seed, few=True),
    "TPE alone": Tpe,
}


def compare(source: str, scale: str, response: Response, repeats: int, trainings: int) -> dict[str, list[list[Step]]]:
    """The curves of every researcher, one a repeat; all meet the same noise in the same repeat."""
    curves: dict[str, list[list[Step]]] = {name: [] for name in RESEARCHERS}
    for repeat in range(repeats):
        for name, make in RESEARCHERS.items():
            night = Night(source, scale, response, repeat)
            curves[name].append(asyncio.run(curve(night, make(scale, repeat), trainings)))
    return curves


def table(curves: dict[str, list[list[Step]]], trainings: int) -> str:
    """The curves as text, and who won."""
    marks = [n for n in (0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300) if n < trainings] + [trainings]
    lines = ["trainings " + "".join(f"{name:>26}" for name in curves)]
    for n in marks:
        cells = []
        for runs in curves.values():
            ends = sorted(at_training(run, n) for run in runs)
            cells.append(f"{statistics.median(ends):.4f} ({ends[1]:.4f}..{ends[-2]:.4f})")
        lines.append(f"{n:9d} " + "".join(f"{cell:>26}" for cell in cells))
    ours = [at_training(run, trainings) for run in curves["search"]]
    for name, runs in curves.items():
        if name != "search":
            theirs = [at_training(run, trainings) for run in runs]
            ahead = [b - a for a, b in zip(ours, theirs, strict=True)]
            won = sum(gap > 0 for gap in ahead)
            lines.append(
                f"search beats {name} in {won} of {len(ahead)} repeats, by {statistics.median(ahead):.4f} bits per byte"
                " at the median"
            )
    return "\n".join(lines)


def main() -> None:
    """Fit the response, run the repeats, print."""
    parser = argparse.ArgumentParser(description="Compare search with random search at equal trainings.")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--train", type=Path, default=ROOT / "train.py")
    parser.add_argument("--scale", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60, help="trainings of each repeat")
    asked = parser.parse_args()
    if asked.repeats < 5:
        parser.error("fewer than 5 repeats decide nothing")
    source = asked.train.read_text(encoding="utf-8")
    items = hyperparameters.read(source, asked.scale)
    response = Surrogate(Space.of(items), load(asked.data, items))
    every, better = response.cross_validated()
    print(f"response: {every}; better half: {better}; noise {response.noise:.4f}")
    started = time.perf_counter()
    curves = compare(source, asked.scale, response, asked.repeats, asked.trials)
    print(table(curves, asked.trials))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
