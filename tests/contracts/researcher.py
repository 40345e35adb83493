"""What every researcher promises, as plain functions over any of them, and a past that lives in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import pytest

from harness import hyperparameters
from harness.types import Attempt, Experiment, History, Outcome, Researcher, Result, Trial, Verdict


class MemoryHistory:
    """A past made by hand. The best kept by mean score is the incumbent."""

    def __init__(self, baseline: str, scores: Mapping[int, float], scale: str = "cpu") -> None:
        self.tag = "test"
        self.scale = scale
        self._experiments: list[Experiment] = []
        self._sources: list[str] = []
        self.add(baseline, scores=scores, verdict=Verdict.KEEP)

    def add(
        self,
        source: str,
        *,
        scores: Mapping[int, float] | None = None,
        outcome: Outcome | None = None,
        verdict: Verdict | None = None,
        parent: int = 0,
        title: str = "",
    ) -> int:
        """An experiment with scores by seed index, or a failed trial, or neither: then it runs. Gives its number."""
        number = len(self._experiments)
        results = {index: Result(Outcome.OK, val_bpb=score) for index, score in (scores or {}).items()}
        if outcome is not None:
            results[0] = Result(outcome, reason="as the test says")
        trials = tuple(Trial(number, 1, index, index, 0.0, result) for index, result in results.items())
        attempt = Attempt(1, f"{number:040x}", hyperparameters.fingerprint(source))
        experiment = Experiment(
            self.tag,
            number,
            "arena",
            parent if number else None,
            title or f"Experiment {number}",
            "",
            "",
            "test",
            created=float(number),
            verdict=verdict,
            attempts=(attempt,),
            trials=trials,
        )
        self._experiments.append(experiment)
        self._sources.append(source)
        return number

    def judged(self, number: int, scores: Mapping[int, float], verdict: Verdict) -> None:
        """A running experiment ends."""
        trials = tuple(Trial(number, 1, i, i, 0.0, Result(Outcome.OK, val_bpb=s)) for i, s in scores.items())
        self._experiments[number] = replace(self._experiments[number], verdict=verdict, trials=trials)

    def experiments(self) -> list[Experiment]:
        """By number."""
        return list(self._experiments)

    def incumbent(self) -> Experiment:
        """The kept one with the lowest mean."""
        kept = [experiment for experiment in self._experiments if experiment.verdict is Verdict.KEEP]
        return min(kept, key=lambda experiment: experiment.val_bpb or 9.0)

    def source(self, experiment: int) -> str:
        """Its text."""
        return self._sources[experiment]

    def tried(self, source: str) -> int | None:
        """By fingerprint."""
        mark = hyperparameters.fingerprint(source)
        marks = [hyperparameters.fingerprint(text) for text in self._sources]
        return marks.index(mark) if mark in marks else None


async def proposes_a_text_that_keeps_the_contract(researcher: Researcher, history: History) -> None:
    """What it hands out can be trained."""
    proposal = await researcher.propose(history)
    hyperparameters.check(proposal.source, history.scale)


async def says_in_words_what_it_tries(researcher: Researcher, history: History) -> None:
    """A title of one line below 80 characters, and a hypothesis."""
    proposal = await researcher.propose(history)
    assert 0 < len(proposal.title) < 80
    assert "\n" not in proposal.title
    assert proposal.hypothesis.strip()


async def starts_from_the_incumbent(researcher: Researcher, history: History) -> None:
    """Its parent is the best kept, whose text it changes."""
    proposal = await researcher.propose(history)
    assert proposal.parent == history.incumbent().id
    assert proposal.source != history.source(proposal.parent)


async def proposes_nothing_that_was_tried(researcher: Researcher, history: History) -> None:
    """The same text is never trained twice."""
    proposal = await researcher.propose(history)
    assert history.tried(proposal.source) is None


async def leaves_the_past_alone(researcher: Researcher, history: History) -> None:
    """Proposing writes nothing."""
    before = history.experiments()
    await researcher.propose(history)
    assert history.experiments() == before


async def can_be_cancelled(researcher: Researcher, history: History) -> None:
    """A run that is stopped does not wait for a proposal."""
    asking = asyncio.ensure_future(researcher.propose(history))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


Promise = Callable[[Researcher, History], Awaitable[None]]
PROMISES: list[Promise] = [
    proposes_a_text_that_keeps_the_contract,
    says_in_words_what_it_tries,
    starts_from_the_incumbent,
    proposes_nothing_that_was_tried,
    leaves_the_past_alone,
    can_be_cancelled,
]
