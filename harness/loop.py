"""The driver: one coroutine an experiment, from proposal to verdict.

An experiment reads as one line: proposal, commit, trials, judgement, verdict, keep or leave. Each step leaves a
row before its work starts, and each coroutine goes on from what the ledger says, so that a run that was killed
anywhere is resumed by starting the same coroutines again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from harness.books import Books, trials
from harness.errors import ContractError, HarnessError, NoProposal
from harness.git import Repository
from harness.hyperparameters import check, fingerprint
from harness.judge import judge, spread
from harness.ledger import Ledger
from harness.settings import Settings
from harness.types import (
    Arena,
    Experiment,
    Job,
    Outcome,
    Proposal,
    Researcher,
    Result,
    Runner,
    Verdict,
    View,
)

BASELINE = 0
MERGE = "merge"
"""Researcher of an experiment that carries a winner over onto a newer incumbent."""
FRUITLESS = 10
"""Proposals in a row without a new text, after which the night ends: the researcher has run dry."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loop works with; all made by the command."""

    settings: Settings
    arena: Arena
    ruler: str
    """Text of `prepare.py` at the night's start."""
    ledger: Ledger
    repository: Repository
    runner: Runner
    researcher: Researcher
    view: View


class Loop:
    """One run of one tag."""

    def __init__(self, parts: Parts) -> None:
        self.settings, self.ruler = parts.settings, parts.ruler
        self.ledger, self.view = parts.ledger, parts.view
        self.runner, self.researcher = parts.runner, parts.researcher
        self.tag = parts.settings.tag
        self.books = Books(parts.settings, parts.arena, parts.ledger, parts.repository, parts.view)
        self._trials: dict[tuple[int, int, int], asyncio.Task[Result]] = {}
        self._experiments: set[asyncio.Task[None]] = set()
        self._noise: asyncio.Task[float] | None = None
        self._dry = 0
        """Proposals without a new text since the last that had one."""

    # The night

    async def night(self) -> None:
        """Baseline, then experiments until told to stop; running ones are finished. Cancelled, it abandons them."""
        self.books.reconcile()
        try:
            await self.baseline()
            self._noise = asyncio.create_task(self.measure_noise())
            for experiment in self.ledger.experiments(self.tag)[1:]:
                if experiment.verdict is None:
                    self._start(self.experiment(experiment.id))
            await self.explore()
            while self._experiments:
                await self._some_end()
            await self._noise
        finally:
            await self._abandon()

    async def explore(self) -> None:
        """Propose whenever a slot would fall idle, until the night's limits are reached."""
        ends = None if self.settings.hours is None else time.monotonic() + 3600 * self.settings.hours
        made = 0
        while made != self.settings.experiments and (ends is None or time.monotonic() < ends):
            if self._dry >= FRUITLESS:
                self.view.say(f"{self.researcher.name} had nothing new {FRUITLESS} times in a row: ending here")
                return
            # One more than there are slots, so that none waits for a proposal.
            if len(self._experiments) > self.runner.slots:
                await self._some_end()
                continue
            number = await self.propose()
            made += 1
            self._raise_faults()
            if number is not None:
                self._start(self.experiment(number))
            elif self._experiments:
                await self._some_end()  # what runs may give the researcher something new to work with

    # One experiment

    async def baseline(self) -> None:
        """Experiment 0, its first seed. Without a score of it the night cannot begin."""
        baseline = self.ledger.experiment(self.tag, BASELINE)
        self.view.experiment_opened(baseline)
        result = await self.trial(baseline, 0)
        if not result.ok:
            raise HarnessError(
                f"The baseline, train.py as it stands, did not get a score: {result.outcome}: {result.reason}",
                f"See {self.settings.folder(BASELINE)}; mend train.py and start again with a new --tag.",
            )

    async def measure_noise(self) -> float:
        """The spread of the baseline over its seeds; its verdict falls with it."""
        baseline = self.ledger.experiment(self.tag, BASELINE)
        seeds = range(max(2, self.settings.baseline_seeds))
        results = await asyncio.gather(*(self.trial(baseline, index) for index in seeds))
        scores = self.ledger.experiment(self.tag, BASELINE).scores
        if len(scores) < 2:
            raise HarnessError(
                f"Only one seed of the baseline got a score: the noise is unknown. {results[-1].reason}",
                f"See {self.settings.folder(BASELINE)}.",
            )
        noise = spread(scores)
        if self.ledger.experiment(self.tag, BASELINE).verdict is None:
            self.books.settle(baseline, Verdict.KEEP, f"{len(scores)} seeds spread over {noise:.4f}", None)
        return noise

    async def propose(self) -> int | None:
        """Ask for an experiment and give it its row, commit and number; None if there is nothing to train."""
        digest = self.books.program_hash()
        incumbent = self.books.past.incumbent().id
        try:
            proposal = await self.researcher.propose(self.books.past)
        except NoProposal as none:
            self._dry += 1
            nothing = Proposal("No proposal", "", "", incumbent)
            experiment = self.books.open(nothing, self.researcher.name, digest)
            self.books.settle(experiment, Verdict.NO_PROPOSAL, none.problem, None)
            return None
        earlier = self.books.past.tried(proposal.source)
        experiment = self.books.open(proposal, self.researcher.name, digest)
        if earlier is not None:
            self._dry += 1
            self.books.settle(
                experiment, Verdict.DUPLICATE, f"the same text as #{earlier}, comments and layout apart", None
            )
            return None
        if unfit := self._unfit(proposal):
            self._dry += 1
            self.books.settle(experiment, Verdict.NO_PROPOSAL, unfit, None)
            return None
        self._dry = 0
        self.books.commit(experiment, proposal.source)
        return experiment.id

    def _unfit(self, proposal: Proposal) -> str:
        """Why a proposal cannot even be committed; "" if it can."""
        try:
            proposal.source.encode()
        except UnicodeEncodeError as error:
            return f"its text is not valid Unicode: {error.reason} at character {error.start}"
        known = {e.id: e for e in self.ledger.experiments(self.tag)}
        parent = known.get(proposal.parent)
        if parent is None or not (parent.id == BASELINE or parent.verdict is Verdict.KEEP):
            return f"it starts from #{proposal.parent}, which is not among those kept"
        return ""

    async def experiment(self, number: int) -> None:
        """Train and judge one experiment, from wherever the ledger says it is."""
        experiment = self.ledger.experiment(self.tag, number)
        if experiment.last is None:  # killed between row and commit: its text is lost, its number stays
            self.books.settle(experiment, Verdict.NO_PROPOSAL, "the harness ended before its text was committed", None)
            return
        try:
            check(self.books.past.source(number), self.settings.scale)
        except ContractError as error:
            self.books.settle(experiment, Verdict.FAILED, error.problem, None)
            return
        origin = experiment.parent
        assert origin is not None
        noise: float | None = None
        while True:
            experiment = self.ledger.experiment(self.tag, number)
            parent = self.ledger.experiment(self.tag, origin)
            judgement = judge(experiment.scores, parent.scores, noise, self.settings.candidate_seeds)
            if judgement.verdict is not None:
                break
            index = len(experiment.scores)
            if index >= self.settings.candidate_seeds:
                assert self._noise is not None
                noise = await asyncio.shield(self._noise)
                continue
            result, _ = await asyncio.gather(self.trial(experiment, index), self.trial(parent, index))
            if not result.ok:
                verdict = Verdict.DISCARD if experiment.scores else Verdict.FAILED
                self.books.settle(experiment, verdict, f"{result.outcome}: {result.reason}", judgement.gain)
                return
        self._conclude(experiment, judgement.verdict, judgement.reason, judgement.gain)

    def _conclude(self, experiment: Experiment, verdict: Verdict, reason: str, gain: float | None) -> None:
        """Keep the winner, or carry it over onto an incumbent that is newer than its parent."""
        incumbent = self.books.past.incumbent()
        if verdict is Verdict.KEEP and experiment.parent != incumbent.id:
            # The merge gets its row before this one its verdict: killed in between, both are found again.
            reason += f"; meanwhile #{incumbent.id} was kept, {self._carry_over(experiment, incumbent)}"
            verdict = Verdict.DISCARD
        self.books.settle(experiment, verdict, reason, gain)

    def _carry_over(self, winner: Experiment, incumbent: Experiment) -> str:
        """Open the three-way merge of a winner and the incumbent as an experiment; what became of it, in words."""
        assert winner.parent is not None
        base, ours, theirs = (self.books.past.source(e) for e in (winner.parent, incumbent.id, winner.id))
        merged = self.books.merge(base, ours, theirs)
        if merged is None:
            against = judge(winner.scores, incumbent.scores, 0.0, self.settings.candidate_seeds)
            if against.verdict is not Verdict.KEEP:
                return "and the two changes touch the same lines"
            merged = theirs  # it beats the incumbent as it is
        proposal = Proposal(
            title=f"#{winner.id} on top of #{incumbent.id}: {winner.title}",
            hypothesis=f"#{winner.id} beat its parent #{winner.parent} after #{incumbent.id} had been kept; "
            "the two changes may add up.",
            source=merged,
            parent=incumbent.id,
            category=MERGE,
        )
        mark = fingerprint(merged)
        for other in self.ledger.experiments(self.tag):
            again = other.researcher == MERGE and other.parent == incumbent.id  # opened before a death
            if other.last and other.last.source_hash == mark and (again or merged != theirs):
                return f"and both together are #{other.id}"
        experiment = self.books.open(proposal, MERGE, winner.program_hash)
        self.books.commit(experiment, merged)
        self._start(self.experiment(experiment.id))
        return f"and both together are #{experiment.id}"

    async def trial(self, experiment: Experiment, index: int) -> Result:
        """The result of one trial: from the ledger, from the trial if it runs already, or by running it."""
        attempt = experiment.last
        assert attempt is not None
        for known in self.ledger.experiment(self.tag, experiment.id).finished:
            if known.index == index and known.result and known.result.outcome is not Outcome.LOST:
                return known.result
        key = (experiment.id, attempt.number, index)
        if key not in self._trials:
            self._trials[key] = asyncio.create_task(self._run(experiment, attempt.number, index))
        # Shared by all who wait for it: one that gives up must not end it for the others.
        return await asyncio.shield(self._trials[key])

    async def _run(self, experiment: Experiment, attempt: int, index: int) -> Result:
        seed = self.settings.seed_at(index)
        folder = self.settings.folder(experiment.id) / f"a{attempt}-s{index}"
        source = self.books.past.source(experiment.id)
        job = Job(self.tag, experiment.id, attempt, index, seed, source, self.ruler, folder)
        self.ledger.start_trial(self.tag, experiment.id, attempt, index, seed)
        self.view.trial_started(job)
        result = await self.runner.run(job, lambda progress: self.view.trial_progress(job, progress))
        self.ledger.finish_trial(self.tag, experiment.id, attempt, index, result)
        self.view.trial_ended(job, result)
        return result

    # Tasks

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._experiments.add(asyncio.create_task(work))

    async def _some_end(self) -> None:
        """Wait until an experiment ends. A fault of the harness in it, or in the baseline, ends the night."""
        watched: set[asyncio.Task[Any]] = set(self._experiments)
        if self._noise is not None and not self._noise.done():
            watched.add(self._noise)
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        self._raise_faults()

    def _raise_faults(self) -> None:
        """Take out what has ended; raise what a task raised."""
        for task in [task for task in self._experiments if task.done()]:
            self._experiments.discard(task)
            task.result()
        if self._noise is not None and self._noise.done():
            self._noise.result()

    async def _abandon(self) -> None:
        """End what still runs and mark it lost."""
        tasks: list[asyncio.Task[Any]] = [*self._experiments, *self._trials.values()]
        if self._noise is not None:
            tasks.append(self._noise)
        for task in tasks:
            task.cancel()
        try:
            # Of those that are done too: an exception that nobody takes is printed over the view.
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            lost = self.ledger.abandon(self.tag)
            if lost:
                self.view.say(f"{trials(lost)} abandoned")
