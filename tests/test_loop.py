"""The loop: real git and a real ledger; the runner and the researcher are scripts of a few lines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TRAIN, git

from harness import start
from harness.errors import HarnessError, LedgerError, NoProposal
from harness.git import Repository
from harness.ledger import Ledger
from harness.loop import FRUITLESS, Loop, Parts
from harness.settings import Settings
from harness.types import Arena, Experiment, History, Job, Outcome, Progress, Proposal, Result, Verdict, Watch

ARENA = Arena("text-1", "cpu", "steps:6", 1, "r", "a cpu", "2.13", 1)
Answer = Callable[[Job], Result | Exception]


def width(source: str) -> int:
    found = re.search(r"^WIDTH = (\d+)", source, re.M)
    assert found
    return int(found[1])


def ok(score: float) -> Result:
    return Result(Outcome.OK, val_bpb=score, training_seconds=1.0, tokens=10, steps=1, params=1)


def by_width(job: Job) -> Result:
    """Wider is better by 0.1 a channel; a seed moves it by 0.01."""
    return ok(10 - 0.1 * width(job.source) - 0.2 * ("LR = pick(gpu=0.1, cpu=0.5)" in job.source) + 0.01 * job.index)


class ScriptedRunner:
    """Answers at once, or when its gate for that experiment opens."""

    def __init__(self, answer: Answer = by_width, slots: int = 2) -> None:
        self.slots, self.answer = slots, answer
        self.jobs: list[Job] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.running = self.most = 0

    async def run(self, job: Job, watch: Watch) -> Result:
        self.jobs.append(job)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            watch(Progress("training", 0.5))
            await (self.gates[job.experiment].wait() if job.experiment in self.gates else asyncio.sleep(0))
            answer = self.answer(job)
        finally:
            self.running -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedResearcher:
    """Proposes the given edits in order; after them, nothing."""

    name = "script"

    def __init__(self, *edits: tuple[str, str] | Callable[[History], str]) -> None:
        self.edits = list(edits)

    async def propose(self, history: History) -> Proposal:
        if not self.edits:
            raise NoProposal("the script is at its end")
        edit = self.edits.pop(0)
        parent = history.incumbent().id
        source = history.source(parent)
        new = edit(history) if callable(edit) else source.replace(*edit)
        return Proposal(f"edit {edit}", "it may help", new, parent)


class SilentView:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class Night:
    """A checkout with its ledger, on which loops can be run one after the other."""

    def __init__(self, checkout: Path) -> None:
        self.root = checkout
        self.ledger = Ledger.open(checkout / "results" / "ledger.db")
        self.repository = Repository.open(checkout)
        self.view = SilentView()
        ruler = (checkout / "prepare.py").read_text()
        self.settings = Settings(root=checkout, tag="night", budget="steps:6")
        plan = start.Plan(self.settings, None, (), ruler, None, None, {})  # type: ignore[arg-type]
        self.ruler = ruler
        start.begin(plan, ARENA, self.ledger, self.repository)

    def loop(self, runner: ScriptedRunner, researcher: ScriptedResearcher, experiments: int | None) -> Loop:
        settings = replace(self.settings, experiments=experiments)
        return Loop(Parts(settings, ARENA, self.ruler, self.ledger, self.repository, runner, researcher, self.view))

    def run(
        self, researcher: ScriptedResearcher, runner: ScriptedRunner | None = None, experiments: int | None = None
    ) -> Sequence[Experiment]:
        count = len(researcher.edits) if experiments is None else experiments
        loop = self.loop(runner or ScriptedRunner(), researcher, count)
        asyncio.run(asyncio.wait_for(loop.night(), 60))
        return self.ledger.experiments("night")


@pytest.fixture
def night(checkout: Path):
    made = Night(checkout)
    yield made
    made.ledger.close()


def wider(channels: int) -> tuple[str, str]:
    return ("WIDTH = 16", f"WIDTH = {channels}")


def test_the_baseline_has_its_seeds_and_is_kept(night: Night) -> None:
    (baseline,) = night.run(ScriptedResearcher(), experiments=0)
    assert baseline.verdict is Verdict.KEEP
    assert sorted(baseline.scores) == [0, 1, 2]
    assert "spread" in baseline.reason


def test_a_winner_moves_the_branch_and_a_loser_does_not(night: Night) -> None:
    _, loser, winner = night.run(ScriptedResearcher(wider(8), wider(32)))
    assert (loser.verdict, winner.verdict) == (Verdict.DISCARD, Verdict.KEEP)
    assert night.repository.branch("night") == winner.commit
    assert "WIDTH = 32" in (night.settings.workspace / "train.py").read_text()
    log = git(night.root, "log", "--format=%s", "autoresearch/night").splitlines()
    assert len(log) == 3  # the winner, the baseline, the user's own


def test_every_attempt_stays_reachable(night: Night) -> None:
    experiments = night.run(ScriptedResearcher(wider(8), wider(32)))
    for experiment in experiments:
        ref = f"refs/autoresearch/night/{experiment.id:04d}"
        assert git(night.root, "rev-parse", ref).strip() == experiment.commit


def test_verdict_and_score_stand_in_the_notes(night: Night) -> None:
    _, winner = night.run(ScriptedResearcher(wider(32)))
    note = git(night.root, "notes", "--ref=autoresearch", "show", winner.commit or "")
    assert "verdict: keep" in note
    assert f"val_bpb: {winner.val_bpb:.6f}" in note


def test_nothing_of_the_users_is_touched(night: Night) -> None:
    (night.root / "train.py").write_text(TRAIN + "# my own change\n")
    before = git(night.root, "status", "--porcelain"), git(night.root, "rev-parse", "HEAD")
    night.run(ScriptedResearcher(wider(32)))
    assert (git(night.root, "status", "--porcelain"), git(night.root, "rev-parse", "HEAD")) == before


def test_a_loser_costs_one_trial_and_a_winner_two(night: Night) -> None:
    _, loser, winner = night.run(ScriptedResearcher(wider(8), wider(32)))
    assert (len(loser.trials), len(winner.trials)) == (1, 2)


def test_candidate_and_parent_share_their_seeds(night: Night) -> None:
    baseline, winner = night.run(ScriptedResearcher(wider(32)))
    seeds = {t.index: t.seed for t in baseline.trials}
    assert all(seeds[t.index] == t.seed for t in winner.trials)


def test_a_gain_within_the_noise_is_not_kept(night: Night) -> None:
    runner = ScriptedRunner(lambda job: ok(1.0 + 0.1 * job.index - 0.05 * (job.experiment == 1)))
    _, lucky = night.run(ScriptedResearcher(wider(32)), runner)
    assert lucky.verdict is Verdict.DISCARD
    assert "within the noise" in lucky.reason


def test_the_same_text_is_never_trained_twice(night: Night) -> None:
    runner = ScriptedRunner()
    experiments = night.run(ScriptedResearcher(wider(8), lambda h: h.source(1) + "\n\n# a comment\n"), runner)
    assert experiments[2].verdict is Verdict.DUPLICATE
    assert "#1" in experiments[2].reason
    assert not [job for job in runner.jobs if job.experiment == 2]


def test_a_text_that_breaks_the_contract_fails_before_a_trial(night: Night) -> None:
    runner = ScriptedRunner()
    experiments = night.run(ScriptedResearcher(("def build_model", "def make_model")), runner)
    assert experiments[1].verdict is Verdict.FAILED
    assert "build_model" in experiments[1].reason
    assert experiments[1].commit
    assert not [job for job in runner.jobs if job.experiment == 1]


def test_a_crash_is_recorded_with_its_reason_and_the_night_goes_on(night: Night) -> None:
    runner = ScriptedRunner(lambda job: Result(Outcome.CRASH, "KeyError: 1") if job.experiment == 1 else by_width(job))
    experiments = night.run(ScriptedResearcher(wider(8), wider(32)), runner)
    assert experiments[1].verdict is Verdict.FAILED
    assert "KeyError" in experiments[1].reason
    assert experiments[2].verdict is Verdict.KEEP


def test_a_crash_with_the_second_seed_only_is_a_discard(night: Night) -> None:
    def answer(job: Job) -> Result:
        return Result(Outcome.OOM, "no memory") if job.experiment == 1 and job.index == 1 else by_width(job)

    experiments = night.run(ScriptedResearcher(wider(32)), ScriptedRunner(answer))
    assert experiments[1].verdict is Verdict.DISCARD


def test_a_baseline_without_a_score_stops_the_night_with_its_reason(night: Night) -> None:
    runner = ScriptedRunner(lambda job: Result(Outcome.CRASH, "NameError: x"))
    with pytest.raises(HarnessError, match="NameError: x"):
        night.run(ScriptedResearcher(wider(8)), runner)


def test_an_exhausted_researcher_ends_the_night(night: Night) -> None:
    experiments = night.run(ScriptedResearcher(), experiments=1000)
    assert [e.verdict for e in experiments[1:]] == [Verdict.NO_PROPOSAL] * FRUITLESS


def test_the_next_experiment_is_proposed_while_trials_run(night: Night) -> None:
    async def go() -> int:
        runner = ScriptedRunner(slots=1)
        runner.gates[1] = asyncio.Event()
        loop = night.loop(runner, ScriptedResearcher(wider(8), wider(4), wider(6)), 3)
        task = asyncio.create_task(loop.night())
        while not any(job.experiment == 2 for job in runner.jobs):
            await asyncio.sleep(0)
        opened = len(night.ledger.experiments("night"))
        runner.gates[1].set()
        await task
        return opened

    assert asyncio.run(asyncio.wait_for(go(), 60)) == 3


def test_one_that_wins_after_the_incumbent_moved_is_merged_onto_it(night: Night) -> None:
    async def go() -> None:
        runner = ScriptedRunner()
        runner.gates[1] = asyncio.Event()
        late = ("LR = pick(gpu=0.1, cpu=0.1)", "LR = pick(gpu=0.1, cpu=0.5)")
        task = asyncio.create_task(night.loop(runner, ScriptedResearcher(late, wider(32)), 2).night())
        while night.ledger.experiments("night")[-1].verdict is not Verdict.KEEP or len(runner.jobs) < 6:
            await asyncio.sleep(0)
        runner.gates[1].set()
        await task

    asyncio.run(asyncio.wait_for(go(), 60))
    _, late, incumbent, merge = night.ledger.experiments("night")
    assert late.verdict is Verdict.DISCARD
    assert "#3" in late.reason
    assert (incumbent.verdict, merge.verdict, merge.parent) == (Verdict.KEEP, Verdict.KEEP, 2)
    text = night.ledger.source("night", 3)
    assert "WIDTH = 32" in text
    assert "cpu=0.5" in text
    assert night.repository.branch("night") == merge.commit


def test_a_winner_that_conflicts_with_the_incumbent_but_beats_it_is_tried_as_it_is(night: Night) -> None:
    async def go() -> None:
        runner = ScriptedRunner()
        runner.gates[1] = asyncio.Event()
        task = asyncio.create_task(night.loop(runner, ScriptedResearcher(wider(64), wider(32)), 2).night())
        while night.ledger.experiments("night")[-1].verdict is not Verdict.KEEP or len(runner.jobs) < 6:
            await asyncio.sleep(0)
        runner.gates[1].set()
        await task

    asyncio.run(asyncio.wait_for(go(), 60))
    *_, carried = night.ledger.experiments("night")
    assert (carried.verdict, carried.parent, carried.researcher) == (Verdict.KEEP, 2, "merge")
    assert "WIDTH = 64" in night.ledger.source("night", carried.id)


def test_stopped_in_the_middle_it_goes_on_and_loses_no_finished_trial(night: Night) -> None:
    async def interrupted() -> list[int]:
        runner = ScriptedRunner()
        runner.gates = {1: asyncio.Event(), 2: asyncio.Event()}
        task = asyncio.create_task(night.loop(runner, ScriptedResearcher(wider(32), wider(8)), 2).night())
        while not {1, 2} <= {job.experiment for job in runner.jobs}:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [job.experiment for job in runner.jobs]

    asyncio.run(interrupted())
    assert [t.result.outcome for e in night.ledger.experiments("night")[1:] for t in e.trials if t.result] == [
        Outcome.LOST,
        Outcome.LOST,
    ]
    runner = ScriptedRunner()
    experiments = night.run(ScriptedResearcher(), runner, experiments=0)
    assert [e.verdict for e in experiments[1:]] == [Verdict.KEEP, Verdict.DISCARD]
    done_before = {(job.experiment, job.index) for job in runner.jobs if job.experiment == 0}
    assert (0, 0) not in done_before  # the baseline's first seed had its result


def test_git_follows_the_ledger_after_a_death_between_them(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies_before_the_candidate(self: Repository, tag: str, commit: str) -> None:
        if self.source(commit) != TRAIN:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "advance", dies_before_the_candidate)
        with pytest.raises(KeyboardInterrupt):
            night.run(ScriptedResearcher(wider(32)))
    kept = night.ledger.experiments("night")[1]
    assert kept.verdict is Verdict.KEEP
    assert night.repository.branch("night") != kept.commit
    night.run(ScriptedResearcher(), experiments=0)
    assert night.repository.branch("night") == kept.commit


class Died(BaseException):
    """The power failed."""


WRITES = [
    (Ledger, "open_experiment"),
    (Ledger, "add_attempt"),
    (Ledger, "start_trial"),
    (Ledger, "finish_trial"),
    (Ledger, "judge"),
    (Repository, "commit"),
    (Repository, "advance"),
    (Repository, "note"),
]


@pytest.mark.parametrize("moment", [1, 2, 4])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), WRITES, ids=[name for _, name in WRITES])
def test_dead_at_any_write_it_goes_on_and_ledger_and_git_agree(
    night: Night, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool, moment: int
) -> None:
    calls, dead = 0, False

    def dying(self_name: str, real: Callable[..., object]) -> Callable[..., object]:
        def write(*arguments: object, **options: object) -> object:
            nonlocal calls, dead
            if dead:
                raise Died
            calls += self_name == name
            dead = self_name == name and calls == moment
            if dead and not after:
                raise Died
            result = real(*arguments, **options)
            if dead:
                raise Died
            return result

        return write

    edits = [wider(8), wider(32), ("LR = pick(gpu=0.1, cpu=0.1)", "LR = pick(gpu=0.1, cpu=0.5)")]
    with monkeypatch.context() as patch:
        for each, method in [*WRITES, (Ledger, "abandon"), (Ledger, "event")]:
            patch.setattr(each, method, dying(method, getattr(each, method)))
        try:
            night.run(ScriptedResearcher(*edits))
        except (Died, BaseExceptionGroup):
            assert dead
    if not dead:
        pytest.skip("there are not so many of these writes")
    before = night.ledger.experiments("night")
    finished = {(e.id, t.index, t.started) for e in before for t in e.trials if t.result}
    judged = {e.id: (e.verdict, e.reason) for e in before if e.verdict}
    runner = ScriptedRunner()
    experiments = night.run(ScriptedResearcher(), runner, experiments=0)
    assert all(e.verdict for e in experiments)
    assert judged.items() <= {e.id: (e.verdict, e.reason) for e in experiments}.items()
    assert finished <= {(e.id, t.index, t.started) for e in experiments for t in e.trials}
    assert not {(job.experiment, job.index) for job in runner.jobs} & {(e, i) for e, i, _ in finished}
    kept = [e for e in experiments if e.verdict is Verdict.KEEP]
    assert night.repository.branch("night") == kept[-1].commit
    assert night.repository.noted() == {e.commit for e in experiments if e.commit}
    texts = [night.ledger.source("night", e.id) for e in experiments if e.attempts]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", ["start_series", "open_experiment", "add_attempt"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_dead_while_a_series_begins_it_is_begun_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    real = getattr(Ledger, name)

    def dying(*arguments: object, **options: object) -> None:
        if after:
            real(*arguments, **options)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, name, dying)
        with pytest.raises(Died):
            Night(checkout)
    again = Night(checkout)
    (baseline,) = again.run(ScriptedResearcher(), experiments=0)
    again.ledger.close()
    assert baseline.verdict is Verdict.KEEP


def test_a_winner_that_conflicts_twice_is_carried_over_twice(night: Night) -> None:
    async def go() -> None:
        runner = ScriptedRunner(slots=3)
        runner.gates = {1: asyncio.Event(), 2: asyncio.Event(), 4: asyncio.Event()}
        loop = night.loop(runner, ScriptedResearcher(wider(64), wider(48), wider(32)), 3)
        task = asyncio.create_task(loop.night())
        while not (len(night.ledger.experiments("night")) > 3 and night.ledger.experiment("night", 3).verdict):
            await asyncio.sleep(0)
        runner.gates[1].set()
        while len(night.ledger.experiments("night")) < 5:
            await asyncio.sleep(0)
        runner.gates[2].set()
        while len(night.ledger.experiments("night")) < 6 or not night.ledger.experiment("night", 5).verdict:
            await asyncio.sleep(0)
        runner.gates[4].set()
        await task

    asyncio.run(asyncio.wait_for(go(), 60))
    kept = [e for e in night.ledger.experiments("night") if e.verdict is Verdict.KEEP]
    assert "WIDTH = 64" in night.ledger.source("night", kept[-1].id)


def test_a_proposal_from_what_was_not_kept_is_no_proposal(night: Night) -> None:
    class Stubborn(ScriptedResearcher):
        async def propose(self, history: History) -> Proposal:
            return replace(await super().propose(history), parent=1)

    experiments = night.run(Stubborn(wider(8), wider(4)))
    assert [e.verdict for e in experiments[1:]] == [Verdict.NO_PROPOSAL] * 2


def test_a_text_that_is_no_unicode_is_no_proposal(night: Night) -> None:
    experiments = night.run(ScriptedResearcher(("WIDTH = 16", "WIDTH = 16  # \ud800")))
    assert experiments[1].verdict is Verdict.NO_PROPOSAL


def test_a_merge_that_breaks_the_contract_fails_before_a_trial(night: Night) -> None:
    twice = ("# Rows a step. [1 | 2 | 4]\n", "# More. [1 | 2]\nNEW = 1\n\n# Rows a step. [1 | 2 | 4]\n")
    also = ("\n\ndef main():\n", "\n\nNEW = 2\n\n\ndef main():\n")

    async def go() -> None:
        runner = ScriptedRunner(lambda job: ok(5 - ("NEW = 1" in job.source) - ("NEW = 2" in job.source)))
        runner.gates[1] = asyncio.Event()
        task = asyncio.create_task(night.loop(runner, ScriptedResearcher(twice, also), 2).night())
        while night.ledger.experiments("night")[-1].verdict is not Verdict.KEEP or len(runner.jobs) < 6:
            await asyncio.sleep(0)
        runner.gates[1].set()
        await task

    asyncio.run(asyncio.wait_for(go(), 60))
    merge = night.ledger.experiments("night")[3]
    assert merge.verdict is Verdict.FAILED
    assert "NEW" in merge.reason


def test_a_fault_in_the_baseline_is_seen_while_proposals_are_made(night: Night) -> None:
    def answer(job: Job) -> Result | Exception:
        return HarnessError("the feeder failed") if (job.experiment, job.index) == (0, 1) else by_width(job)

    with pytest.raises(HarnessError, match="the feeder failed"):
        night.run(ScriptedResearcher(*(wider(n) for n in range(4, 12))), ScriptedRunner(answer))
    assert len(night.ledger.experiments("night")) < 9  # it did not go on to the end


def test_no_experiment_is_proposed_once_the_hours_are_over(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("harness.loop.time", clock)

    async def go() -> None:
        runner = ScriptedRunner(slots=1)
        runner.gates = {1: asyncio.Event(), 2: asyncio.Event()}
        loop = night.loop(runner, ScriptedResearcher(*(wider(n) for n in range(4, 12))), None)
        loop.settings = replace(loop.settings, hours=1)
        task = asyncio.create_task(loop.night())
        while not {1, 2} <= {job.experiment for job in runner.jobs}:
            await asyncio.sleep(0)
        clock.now = 3601.0
        for gate in runner.gates.values():
            gate.set()
        await task

    asyncio.run(asyncio.wait_for(go(), 60))
    assert len(night.ledger.experiments("night")) == 3


def test_a_second_cancellation_cuts_no_clean_up_short(night: Night) -> None:
    async def go() -> None:
        runner = ScriptedRunner()
        runner.gates[0] = asyncio.Event()
        task = asyncio.create_task(night.loop(runner, ScriptedResearcher(), 0).night())
        while not runner.jobs:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    (trial,) = night.ledger.experiments("night")[0].trials
    assert trial.result
    assert trial.result.outcome is Outcome.LOST


def test_a_workspace_that_cannot_be_written_does_not_matter(night: Night) -> None:
    (night.root / "workspace").write_text("in the way")
    assert night.run(ScriptedResearcher(wider(32)))[1].verdict is Verdict.KEEP


def test_a_branch_that_someone_stands_on_does_not_end_the_night(night: Night) -> None:
    git(night.root, "checkout", "-q", "autoresearch/night")
    experiments = night.run(ScriptedResearcher(wider(32), wider(8)))
    assert experiments[1].verdict is Verdict.KEEP
    assert any("stays behind" in line for line in night.view.said)
    git(night.root, "checkout", "-q", "main")
    night.run(ScriptedResearcher(), experiments=0)
    assert night.repository.branch("night") == experiments[1].commit


def test_a_series_goes_on_with_no_other_seed(night: Night) -> None:
    plan = start.Plan(replace(night.settings, seed=7), None, (), night.ruler, None, None, {})  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="begun with --seed 1"):
        start.begin(plan, ARENA, night.ledger, night.repository)


def test_no_more_trials_run_at_once_than_experiments_are_under_way(night: Night) -> None:
    runner = ScriptedRunner(slots=2)
    night.run(ScriptedResearcher(*(wider(n) for n in range(4, 12))), runner)
    assert runner.most <= 3 + 3  # slots and one in waiting, and the baseline's seeds


def test_only_two_checkpoints_stay(night: Night) -> None:
    def answer(job: Job) -> Result:
        weights = job.folder / "checkpoint" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
        return by_width(job)

    night.run(ScriptedResearcher(wider(8), wider(32), wider(4)), ScriptedRunner(answer))
    left = {path.parts[-4] for path in night.settings.results.glob("night/*/*/checkpoint/*")}
    assert left == {"0002", "0000"}


def test_results_tsv_has_a_row_an_experiment(night: Night) -> None:
    night.run(ScriptedResearcher(wider(8), wider(32)))
    rows = (night.settings.results / "results.tsv").read_text().splitlines()
    assert rows[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert [row.split("\t")[3] for row in rows[1:]] == ["keep", "discard", "keep"]


def test_a_series_of_another_arena_is_refused(night: Night) -> None:
    plan = start.Plan(night.settings, None, (), night.ruler, None, None, {})  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match=r"device: another, a cpu before"):
        start.begin(plan, replace(ARENA, device="another"), night.ledger, night.repository)


def test_an_edit_of_program_md_shows_in_the_next_row(night: Night) -> None:
    def edited(history: History) -> str:
        (night.root / "program.md").write_text("Be bold.\n")
        return history.source(0).replace(*wider(8))

    experiments = night.run(ScriptedResearcher(edited, wider(4)))
    assert experiments[1].program_hash != experiments[2].program_hash
