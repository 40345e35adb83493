"""The view for pipes and logs: one line an event."""

from __future__ import annotations

import json
import time
from typing import Self, TextIO

from harness.figures import figure
from harness.text import one_line
from harness.told import REASON_LIMIT, TITLE_LIMIT, Clock, Deaf, Heading, speed
from harness.types import Experiment, Job, Progress, Result

PROGRESS_EVERY = 30.0
"""Seconds between two lines of progress of one trial."""


class PlainView:
    """One line an event, without colours, for pipes and logs.

    A line is `DATE TIME EVENT`, then the experiment's number, then `key=value` pairs in a fixed order; `-` is
    an absent value and free text is a JSON string, so that no title can look like another line or key.
    """

    def __init__(
        self, stream: TextIO, heading: Heading, *, clock: Clock = time.monotonic, now: Clock = time.time
    ) -> None:
        self._stream = Deaf(stream)
        self._heading = heading
        self._clock = clock
        self._now = now
        self._shown: dict[tuple[int, int, int], float] = {}

    def __enter__(self) -> Self:
        heading = self._heading
        self._line("run", tag=heading.tag, researcher=heading.researcher, until=_quoted(heading.until, TITLE_LIMIT))
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def say(self, text: str) -> None:
        self._line("news", text=_quoted(text, 4 * REASON_LIMIT))

    def trial_started(self, job: Job) -> None:
        self._shown[job.experiment, job.attempt, job.index] = self._clock()

    def trial_progress(self, job: Job, progress: Progress) -> None:
        key, now = (job.experiment, job.attempt, job.index), self._clock()
        if now - self._shown.setdefault(key, now) < PROGRESS_EVERY:
            return
        self._shown[key] = now
        self._line(
            f"running {job.experiment}",
            **_trial(job),
            phase=one_line(progress.phase, 20),
            percent=figure(100 * progress.fraction, 0),
            steps=progress.steps,
            tokens_per_second=figure(speed(progress), 0),
            claimed_loss=figure(progress.loss),
        )

    def trial_ended(self, job: Job, result: Result) -> None:
        self._shown.pop((job.experiment, job.attempt, job.index), None)
        self._line(
            f"ended {job.experiment}",
            **_trial(job),
            outcome=result.outcome.value,
            val_bpb=figure(result.val_bpb, 6),
            seconds=figure(result.total_seconds, 1),
            reason=_quoted(result.reason, REASON_LIMIT),
        )

    def experiment_opened(self, experiment: Experiment) -> None:
        self._line(
            f"opened {experiment.id}",
            parent="" if experiment.parent is None else experiment.parent,
            researcher=one_line(experiment.researcher, TITLE_LIMIT),
            title=_quoted(experiment.title, TITLE_LIMIT),
        )

    def experiment_judged(self, experiment: Experiment) -> None:
        self._line(
            f"judged {experiment.id}",
            verdict=experiment.verdict.value if experiment.verdict else "",
            val_bpb=figure(experiment.val_bpb, 6),
            gain=figure(experiment.gain, 6, "+"),
            title=_quoted(experiment.title, TITLE_LIMIT),
            reason=_quoted(experiment.reason, REASON_LIMIT),
        )

    def _line(self, event: str, **values: object) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._now()))
        pairs = " ".join(f"{key}={str(value) or '-'}" for key, value in values.items())
        self._stream.write(f"{stamp} {event} {pairs}\n")
        self._stream.flush()


def _trial(job: Job) -> dict[str, int]:
    return {"attempt": job.attempt, "seed": job.seed}


def _quoted(text: str, limit: int) -> str:
    return json.dumps(one_line(text, limit), ensure_ascii=False)
