"""What a view was told of a run so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TextIO

from harness.judge import gain
from harness.standings import incumbent
from harness.text import one_line
from harness.types import Experiment, Job, Progress, Result, Verdict

Clock = Callable[[], float]

TITLE_LIMIT = 120
REASON_LIMIT = 240


@dataclass(frozen=True, slots=True)
class Heading:
    """What a view says of the run as a whole."""

    tag: str
    researcher: str
    until: str
    """The stop condition in words, as they follow the word until: `07:00`, `100 experiments`."""
    past: Sequence[Experiment] = ()
    """Experiments of the tag that were made before; counted, not announced."""


def speed(progress: Progress) -> float | None:
    """Tokens per second of the budget's clock; None before it has run."""
    return progress.tokens / progress.seconds if progress.seconds > 0 else None


class Deaf:
    """A stream that takes what it is given and never complains: a run outlives its terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@dataclass(slots=True)
class Board:
    """What was told so far. Not thread-safe; whoever shares it locks."""

    running: dict[tuple[int, int, int], tuple[Job, Progress]] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    """Of all experiments but the baseline."""
    baseline: dict[int, float] = field(default_factory=dict)
    """val_bpb by seed index."""
    kept: list[Experiment] = field(default_factory=list)
    """All kept but the baseline, in order of judgement."""

    @classmethod
    def of(cls, past: Sequence[Experiment]) -> Self:
        board = cls()
        for experiment in past:
            board.judged(experiment)
        return board

    def opened(self, experiment: Experiment) -> None:
        self.titles[experiment.id] = one_line(experiment.title, TITLE_LIMIT)

    def progressed(self, job: Job, progress: Progress) -> None:
        self.running[job.experiment, job.attempt, job.index] = (job, progress)

    def ended(self, job: Job, result: Result) -> None:
        self.running.pop((job.experiment, job.attempt, job.index), None)
        if job.experiment == 0 and result.ok and result.val_bpb is not None:
            self.baseline[job.index] = result.val_bpb

    def judged(self, experiment: Experiment) -> None:
        """Also takes one that has no verdict yet: what it has so far counts."""
        self.opened(experiment)
        if experiment.id == 0:
            self.baseline.update(experiment.scores)
        elif experiment.verdict is not None:
            self.verdicts[experiment.verdict] += 1
            if experiment.verdict is Verdict.KEEP:
                self.kept.append(experiment)

    @property
    def start(self) -> float | None:
        """Mean val_bpb of the baseline."""
        return sum(self.baseline.values()) / len(self.baseline) if self.baseline else None

    @property
    def best(self) -> Experiment | None:
        """The incumbent; None while it is the baseline."""
        return incumbent(self.kept)

    @property
    def gain(self) -> float | None:
        """Of the best over the baseline, on the seeds that both have."""
        return gain(self.best.scores, self.baseline) if self.best else None
