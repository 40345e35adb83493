"""Who stands where: experiments of one arena by score, and what each gained. Pure; draws nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.judge import gain
from harness.types import Experiment, Outcome, Result, Verdict


@dataclass(frozen=True, slots=True)
class Standing:
    """One experiment and its place. Figures are of the last attempt's trials that have ended."""

    rank: int | None
    """From 1, by mean val_bpb; None without a score."""
    experiment: Experiment
    total_gain: float | None
    """The baseline's mean minus its own over the seeds that both have, in bits per byte."""
    trials: int
    """That gave a score."""
    training_seconds: float | None
    """Mean of a trial, as are the next two."""
    total_seconds: float | None
    tokens: float | None
    params: int | None
    peak_memory_mb: float | None
    """The highest of its trials."""
    sandbox: int | None
    """The lowest level of its trials; that of a lost one is not known."""
    gap: float | None
    """The largest of its trials, in either direction; None where no audit was made."""

    @property
    def kept(self) -> bool:
        return self.experiment.verdict is Verdict.KEEP


@dataclass(frozen=True, slots=True)
class Standings:
    """All experiments of one arena: first those with a score, the best first, then the others by number."""

    arena: str
    """Key of the arena."""
    rows: tuple[Standing, ...]

    @property
    def baseline(self) -> Standing | None:
        """That of the incumbent's tag; of the best tag while there is none."""
        best = self.incumbent
        tags = {row.experiment.tag for row in self.rows} if best is None else {best.experiment.tag}
        return next((row for row in self.rows if row.experiment.parent is None and row.experiment.tag in tags), None)

    @property
    def incumbent(self) -> Standing | None:
        """The tag's, see `incumbent`; where tags meet, the one with the lowest score."""
        tags: dict[str, list[Experiment]] = {}
        for row in self.rows:
            tags.setdefault(row.experiment.tag, []).append(row.experiment)
        last = {(one.tag, one.id) for members in tags.values() if (one := incumbent(members))}
        return next((row for row in self.rows if (row.experiment.tag, row.experiment.id) in last), None)

    @property
    def tags(self) -> int:
        """How many series meet in this arena."""
        return len({row.experiment.tag for row in self.rows})

    @property
    def hours(self) -> float:
        """Of all trials together, side by side or not."""
        results = [t.result for row in self.rows for t in row.experiment.trials if t.result]
        return sum(result.total_seconds for result in results) / 3600

    def count(self, verdict: Verdict) -> int:
        return sum(row.experiment.verdict is verdict for row in self.rows)


def standings(experiments: Iterable[Experiment]) -> list[Standings]:
    """Rank experiments, each inside its arena; arenas come in the order of their first experiment."""
    arenas: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        arenas.setdefault(experiment.arena, []).append(experiment)
    return [Standings(arena, tuple(_ranked(members))) for arena, members in arenas.items()]


def incumbent(experiments: Iterable[Experiment]) -> Experiment | None:
    """Of the experiments of one tag, the last one kept: the head of the branch, whatever an older one scored.

    A keep's parent is the keep before it, so the last one has the highest number.
    """
    kept = (experiment for experiment in experiments if experiment.verdict is Verdict.KEEP)
    return max(kept, key=lambda experiment: experiment.id, default=None)


def lineage(experiment: Experiment, known: Mapping[tuple[str, int], Experiment]) -> list[Experiment]:
    """The experiment, its parent, and so on to the baseline."""
    line = [experiment]
    while (parent := line[-1].parent) is not None and (experiment.tag, parent) in known:
        line.append(known[experiment.tag, parent])
    return line


def _ranked(members: Sequence[Experiment]) -> Iterable[Standing]:
    baselines = {e.tag: e.scores for e in members if e.parent is None}
    scored = sorted(
        ((mean, i) for i, e in enumerate(members) if (mean := e.val_bpb) is not None), key=lambda pair: pair
    )
    for rank, (_, i) in enumerate(scored, 1):
        yield _standing(members[i], rank, gain(members[i].scores, baselines.get(members[i].tag, {})))
    for experiment in members:
        if experiment.val_bpb is None:
            yield _standing(experiment, None, None)


def _standing(experiment: Experiment, rank: int | None, total_gain: float | None) -> Standing:
    results = [trial.result for trial in experiment.finished if trial.result]
    ok = [result for result in results if result.ok] or results
    return Standing(
        rank,
        experiment,
        total_gain if experiment.parent is not None else None,
        len(experiment.scores),
        _mean(ok, "training_seconds"),
        _mean(ok, "total_seconds"),
        _mean(ok, "tokens"),
        next((r.params for r in ok if r.params is not None), None),
        max((r.peak_memory_mb for r in ok if r.peak_memory_mb is not None), default=None),
        min((r.sandbox for r in results if r.outcome is not Outcome.LOST), default=None),
        max((r.gap for r in results if r.gap is not None), key=abs, default=None),
    )


def _mean(results: Sequence[Result], name: str) -> float | None:
    values = [value for result in results if (value := getattr(result, name)) is not None]
    return fmean(values) if values else None
