"""The words of the harness as types, and the protocols between its parts. Imports nothing internal."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Outcome(StrEnum):
    """How a trial ended."""

    OK = "ok"
    CRASH = "crash"
    """`train.py` raised or was killed by a signal of its own making."""
    TIMEOUT = "timeout"
    OOM = "oom"
    """Out of memory, of the host or of the device."""
    DISK = "disk"
    INVALID = "invalid"
    """The contract was broken: no batch asked for, no checkpoint saved, a score that is not finite."""
    NON_CAUSAL = "non_causal"
    BAD_ARTIFACT = "bad_artifact"
    """The checkpoint cannot be read, or the model built from it answers in another form than it must."""
    LOST = "lost"
    """The harness ended before the trial did."""


class Verdict(StrEnum):
    """What became of an experiment. Written once."""

    KEEP = "keep"
    DISCARD = "discard"
    FAILED = "failed"
    """No trial of it was `ok`."""
    NO_PROPOSAL = "no_proposal"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Arena:
    """All that makes two scores comparable. A leaderboard ranks inside one arena; a seed is never part of it."""

    corpus: str
    """Name and content hash of corpus and tokenizer, as in `python-1f3a...`."""
    scale: str
    budget: str
    """Kind and amount: `wall:300` seconds, `cpu:30` seconds of the process tree, `steps:40`."""
    scorer: int
    """Version of the scorer."""
    ruler: str
    """Hash of the constants of `prepare.py`."""
    device: str
    """Model of the device."""
    torch: str
    threads: int

    @property
    def key(self) -> str:
        """A short hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: Arena) -> list[str]:
        """The fields in which two arenas differ, as `field: ours, theirs`."""
        ours, theirs = asdict(self), asdict(other)
        return [f"{name}: {ours[name]}, {theirs[name]}" for name in ours if ours[name] != theirs[name]]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a proposal cost. Zero for researchers that cost nothing."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    dollars: float = 0.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A new text of `train.py` and why."""

    title: str
    """One line, below 80 characters."""
    hypothesis: str
    source: str
    parent: int
    """Number of the experiment whose text it starts from."""
    category: str = ""
    expected_gain: float | None = None
    """In bits per byte."""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One text of `train.py` and its commit; a repair after a crash is a new attempt of the same experiment."""

    number: int
    """From 1."""
    commit: str
    source_hash: str
    """Of the text without comments and layout (see `hyperparameters.fingerprint`)."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the scorer measured; the only number that is judged."""

    val_bpb: float
    tokens: int
    """Targets that were scored (those of zero bytes left out)."""
    bytes: int
    seconds: float
    """Of scoring, start of its processes included."""
    params: int
    """Counted from the checkpoint by the harness."""
    gap: float = 0.0
    """As in `Result`."""
    audited: int = 0
    """Targets that the audit compared."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a runner measured of one trial. Fields that were not reached are None."""

    outcome: Outcome
    reason: str = ""
    """One line, for every outcome but `ok`: what happened, with its figure. Escaped; at most 2,000 characters."""
    val_bpb: float | None = None
    training_seconds: float | None = None
    """Of the budget's clock, from the first batch to the end of the last."""
    total_seconds: float = 0.0
    """Wall seconds of the whole trial: processes started, training, saving, scoring."""
    scoring_seconds: float | None = None
    tokens: int = 0
    steps: int = 0
    peak_memory_mb: float | None = None
    """Of the device on a GPU (claimed by the trainer), resident on a CPU (measured)."""
    params: int | None = None
    claimed_mfu: float | None = None
    """Per cent of the device's bf16 peak; only ever claimed."""
    sandbox: int = 1
    """Level that was in force (docs/trust.md)."""
    beside: int = 0
    """Other trials that ran on this machine when it started."""
    gap: float | None = None
    """Bits per byte by which the losses at secret cuts grow or shrink when what follows them is swapped; 0 for a
    causal model (docs/trust.md)."""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one attempt with one seed. `result` is None while it runs."""

    experiment: int
    attempt: int
    index: int
    """i-th seed of the tag, from 0; i-th trials of candidate and parent share it."""
    seed: int
    started: float
    """Unix time."""
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """One idea: its proposal, attempts, trials, verdict. Number 0 is the baseline."""

    tag: str
    id: int
    arena: str
    """Key of the arena."""
    parent: int | None
    """Experiment it starts from and is judged against; None for the baseline."""
    title: str
    hypothesis: str
    category: str
    researcher: str
    created: float
    expected_gain: float | None = None
    usage: Usage = Usage()
    program_hash: str = ""
    verdict: Verdict | None = None
    """None while it runs."""
    reason: str = ""
    gain: float | None = None
    """Parent's mean minus ours over shared seeds, in bits per byte; positive is better."""
    ended: float | None = None
    attempts: tuple[Attempt, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def last(self) -> Attempt | None:
        """The attempt that counts."""
        return self.attempts[-1] if self.attempts else None

    @property
    def commit(self) -> str | None:
        return self.attempts[-1].commit if self.attempts else None

    @property
    def finished(self) -> tuple[Trial, ...]:
        """Trials of the last attempt that have a result, by seed index."""
        last = self.attempts[-1].number if self.attempts else 0
        done = [t for t in self.trials if t.attempt == last and t.result is not None]
        return tuple(sorted(done, key=lambda t: t.index))

    @property
    def scores(self) -> dict[int, float]:
        """val_bpb by seed index, of the `ok` trials of the last attempt."""
        return {t.index: t.result.val_bpb for t in self.finished if t.result and t.result.val_bpb is not None}

    @property
    def val_bpb(self) -> float | None:
        """Mean over seeds."""
        values = self.scores.values()
        return sum(values) / len(values) if values else None

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean over seeds; None below two."""
        values, mean = self.scores.values(), self.val_bpb
        if mean is None or len(values) < 2:
            return None
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
        return math.sqrt(variance / len(values))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge says of a candidate on the evidence so far. `verdict` None: train one more seed."""

    verdict: Verdict | None
    reason: str
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to run: everything a runner needs, and nothing it could choose."""

    tag: str
    experiment: int
    attempt: int
    index: int
    seed: int
    source: str
    """Text of `train.py`."""
    ruler: str
    """Text of `prepare.py`, as it was at the night's start."""
    folder: Path
    """Where log, output, checkpoint and `result.json` are left; of this trial alone."""

    @property
    def name(self) -> str:
        """As it is shown: `12` for the first seed, `12 seed 2` for a further one."""
        return f"{self.experiment}" + (f" seed {self.index + 1}" if self.index else "")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running trial is. Loss is claimed by the trainer; the rest is the feeder's."""

    phase: str
    """`starting`, `training`, `saving`, `scoring`."""
    fraction: float = 0.0
    """Share of the budget that is spent, in [0, 1]."""
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Of the budget's clock."""
    loss: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


Watch = Callable[[Progress], None]


class Runner(Protocol):
    """Trains and scores. A cluster or a laptop: the same contract (tests/contracts/runner.py)."""

    slots: int
    """How many trials it can run at once."""

    async def run(self, job: Job, watch: Watch) -> Result:
        """Run one trial to its end. Waits for a free slot first. Cancelled, it ends every process of the trial."""
        ...


class History(Protocol):
    """The past of one tag, as a researcher may see it. Nothing of `holdout` is in it."""

    tag: str
    scale: str

    def experiments(self) -> Sequence[Experiment]:
        """All of the tag so far, by number, those still running included."""
        ...

    def incumbent(self) -> Experiment:
        """The best kept so far; new proposals start from it."""
        ...

    def source(self, experiment: int) -> str:
        """Text of `train.py` of the experiment's last attempt."""
        ...

    def tried(self, source: str) -> int | None:
        """The experiment that had this text already, comments and layout apart; None if none had."""
        ...


class Researcher(Protocol):
    """Proposes experiments (tests/contracts/researcher.py)."""

    name: str
    """As in `--researcher` and in the ledger: `search`, `anthropic:MODEL`."""

    async def propose(self, history: History) -> Proposal:
        """One experiment, from the incumbent. Raises `NoProposal` with the reason if there is none this time."""
        ...


class View(Protocol):
    """Shows a run to a person. Never waits, never raises; what it is told of is already in the ledger."""

    def say(self, text: str) -> None:
        """One line of news."""
        ...

    def trial_started(self, job: Job) -> None: ...

    def trial_progress(self, job: Job, progress: Progress) -> None: ...

    def trial_ended(self, job: Job, result: Result) -> None: ...

    def experiment_opened(self, experiment: Experiment) -> None: ...

    def experiment_judged(self, experiment: Experiment) -> None: ...
