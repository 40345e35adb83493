"""All that one run was asked to do, in one frozen object; `run.py` alone fills it from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run, resolved: nothing here is left to be chosen later."""

    root: Path
    """Top of the git checkout that holds train.py, prepare.py and program.md."""
    tag: str
    """Name of the night's series; its branch is `autoresearch/TAG`."""
    researcher: str = "search"
    """Who proposes. Nothing that costs money is ever chosen by itself."""
    experiments: int | None = None
    """How many more experiments to make, the baseline not counted; None: until told to stop."""
    hours: float | None = None
    """When to stop proposing; running experiments are finished."""
    budget: str = "cpu:30"
    """Of one trial: `wall:SECONDS`, `cpu:SECONDS` or `steps:N`."""
    scale: str = "cpu"
    """`gpu` or `cpu`: which column of the ruler's constants holds."""
    corpus: str = "python"
    """`climbmix`, `python`, or the path of a file or folder."""
    seed: int = 1
    """First seed of the tag; the i-th seed is this plus i."""
    workers: int = 1
    """Trials that run side by side: one GPU each, or one pinned core each."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    cache: Path = Path("~/.cache/autoresearch")
    """Where prepared corpora lie; AUTORESEARCH_CACHE moves it."""
    baseline_seeds: int = 3
    """Trainings of the baseline; their spread is what the judge calls noise."""
    candidate_seeds: int = 2
    """Trainings after which a candidate is judged at last."""

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def workspace(self) -> Path:
        """Where the incumbent can be looked at."""
        return self.root / "workspace" / self.tag

    def folder(self, experiment: int) -> Path:
        """Where the evidence of one experiment lies."""
        return self.results / self.tag / f"{experiment:04d}"

    def seed_at(self, index: int) -> int:
        """The i-th seed of the tag."""
        return self.seed + index
