"""How long a trial may take, and how far it came."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.ruler import Budget

LAST_STEP_SHARE, LAST_STEP = 0.05, {"cpu": 0.5, "wall": 2.0}
"""How far the step that meets the end of the budget may overrun it: a share, or seconds of the budget's clock if
those are more."""
AFTERWARDS_SHARE, AFTERWARDS = 0.02, {"cpu": 1.5, "wall": 10.0}
"""The same for all that comes after: averaging and saving."""
WORK = {"cpu": 6.0, "cuda": 120.0}
"""Seconds that the model servers together may take to build, whatever the model; at scale `cpu` an honest one takes
under one. On a GPU, where it was measured on none, more is allowed."""
FORWARD = 0.7
"""Of what training on a token took, what an answer may take: a forward is a third, and some rows are sent twice."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Wall seconds of each phase, whatever the clock of the budget says. Fixed: they need no baseline."""

    start: float
    """From the start of the process to the first batch: imports, building, compiling."""
    train: float
    save: float
    """From the end of the budget to the end of the process: averaging and saving."""
    score: float
    """Of the whole scoring: a model that takes longer is too slow to be worth its training."""
    work: float = math.inf
    """Seconds that both model servers together may take beside answering, of CPU time on a CPU."""

    @classmethod
    def of(cls, budget: Budget, device: str) -> Limits:
        # A wall budget ends by itself at the next batch; a process may also sleep on a CPU budget.
        train = {"wall": 1.5 * budget.amount + 60, "cpu": 8 * budget.amount + 60, "steps": 6 * 3600.0}[budget.kind]
        work = math.inf if budget.kind == "steps" else WORK[device]
        if device == "cuda":
            return cls(900.0, train, 120.0, 600.0, work)
        return cls(120.0, train, 60.0, 90.0, work)

    def servers(self, feed: Feed, tokens: int) -> float:
        """Seconds that both model servers together may work to score so many tokens.

        A model could be trained there too. So they get what answering takes by the model's own speed in training: who
        trained slowly to get more of it, has learned less.
        """
        return self.work + FORWARD * tokens * feed.seconds / max(1, feed.tokens)


@dataclass(slots=True)
class Feed:
    """What the feeder said of a trial."""

    started: bool = False
    ended: bool = False
    """The budget is spent."""
    stopped: bool = False
    """The trainer knows that it is."""
    lost: bool = False
    """The feeder was killed, by nobody of ours."""
    afterwards: float = 0.0
    """Seconds of the clock from then to the end of the process."""
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    fraction: float = 0.0

    def overrun(self, budget: Budget) -> str:
        """How far the trainer worked beyond its budget, if that is more than is allowed; else ""."""
        if budget.kind == "steps":
            return ""
        late, allowed = self.seconds - budget.amount, max(LAST_STEP[budget.kind], LAST_STEP_SHARE * budget.amount)
        if late > allowed:
            return (
                f"worked on for {late:.2f} s after its {budget.amount:g} s were spent, before it asked for a batch; "
                f"{allowed:g} s are allowed: make its steps smaller"
            )
        allowed = max(AFTERWARDS[budget.kind], AFTERWARDS_SHARE * budget.amount)
        if self.afterwards > allowed:
            return (
                f"worked for {self.afterwards:.2f} s after it knew that its {budget.amount:g} s were spent; "
                f"{allowed:g} s are allowed, for saving"
            )
        return ""
