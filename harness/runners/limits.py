"""How long a trial may take, and how far it came."""

from __future__ import annotations

from dataclasses import dataclass

from harness.ruler import Budget

LAST_STEP = 0.25
"""Share of the budget by which the step that meets its end may overrun it; with longer ones, time is no measure."""
AFTERWARDS = {"cpu": 2.0, "wall": 10.0}
"""Seconds of the budget's clock for saving, or a tenth of the budget if that is more."""


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

    @classmethod
    def of(cls, budget: Budget, device: str) -> Limits:
        # A wall budget ends by itself at the next batch; a process may also sleep on a CPU budget.
        train = {"wall": 1.5 * budget.amount + 60, "cpu": 8 * budget.amount + 60, "steps": 6 * 3600.0}[budget.kind]
        return cls(900.0, train, 120.0, 600.0) if device == "cuda" else cls(120.0, train, 60.0, 90.0)


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
        late = self.seconds - budget.amount
        if late > LAST_STEP * budget.amount:
            return f"worked on for {late:.1f} s after its {budget.amount:g} s were spent, before it asked for a batch"
        if self.afterwards > max(AFTERWARDS[budget.kind], budget.amount / 10):
            return f"worked for {self.afterwards:.1f} s after it knew that its {budget.amount:g} s were spent"
        return ""
