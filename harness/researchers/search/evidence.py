"""What the past of a tag says about hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness import hyperparameters
from harness.errors import ContractError
from harness.hyperparameters import Value
from harness.types import Experiment, History, Outcome

NOT_ITS_FAULT = frozenset({Outcome.DISK, Outcome.LOST})
"""Outcomes that say nothing of the setting."""


@dataclass(frozen=True, slots=True)
class Text:
    """One `train.py`, read."""

    values: dict[str, Value]
    code: str
    """Hash of all of it but the values of its hyperparameters."""


@dataclass(frozen=True, slots=True)
class Point:
    """One experiment as search sees it."""

    id: int
    parent: int | None
    values: dict[str, Value]
    code: str
    scores: dict[int, float] = field(default_factory=dict)
    """val_bpb by index of the seed."""
    failed: bool = False
    """It ran and gave no score, by a fault of its own: a setting that cannot be had."""
    outcome: str = ""

    @property
    def running(self) -> bool:
        return not self.scores and not self.failed


@dataclass(frozen=True, slots=True)
class Change:
    """What an experiment did to the text it started from."""

    id: int
    old: dict[str, Value]
    new: dict[str, Value]
    gain: float | None
    """Of the paired seeds, in bits per byte; positive is better. None: failed, or still running."""
    outcome: str
    """Of a failure; empty otherwise."""


class Reader:
    """Reads the past through `History`; each text is parsed once, by its commit."""

    def __init__(self, scale: str) -> None:
        self._scale = scale
        self._texts: dict[str, Text | None] = {}
        self._templates: list[hyperparameters.Template] = []

    def points(self, history: History) -> list[Point]:
        """All experiments with a text that keeps the contract, by number."""
        found = [self._point(history, experiment) for experiment in history.experiments()]
        return [point for point in found if point]

    def _point(self, history: History, experiment: Experiment) -> Point | None:
        commit = experiment.commit
        if commit is None:
            return None
        if commit not in self._texts:
            self._texts[commit] = self._read(history.source(experiment.id))
        text = self._texts[commit]
        if text is None:
            return None
        failures = [t.result.outcome for t in experiment.finished if t.result and not t.result.ok]
        scores = experiment.scores
        if not scores and (experiment.verdict is not None or failures):
            if not failures or failures[-1] in NOT_ITS_FAULT:
                return None
            return Point(
                experiment.id,
                experiment.parent,
                text.values,
                text.code,
                failed=True,
                outcome=failures[-1].value,
            )
        return Point(experiment.id, experiment.parent, text.values, text.code, scores)

    def _read(self, source: str) -> Text | None:
        """None if the text breaks the contract, as some that were tried will. Most are an edit of one before."""
        for template in self._templates:
            values = template.match(source)
            if values is not None:
                return Text(values, template.code)
        try:
            template = hyperparameters.Template(source, self._scale)
        except ContractError:
            return None
        self._templates.insert(0, template)
        return Text(template.values, template.code)


def changes(points: list[Point]) -> list[Change]:
    """What each experiment changed, for those that left the code of their parent alone."""
    by_id = {point.id: point for point in points}
    found: list[Change] = []
    for point in points:
        parent = by_id.get(point.parent) if point.parent is not None else None
        if parent is None or parent.code != point.code:
            continue
        new = {name: value for name, value in point.values.items() if parent.values.get(name) != value}
        old = {name: parent.values[name] for name in new if name in parent.values}
        if old:
            found.append(Change(point.id, old, new, paired_gain(parent.scores, point.scores), point.outcome))
    return found


def paired_gain(parent: Mapping[int, float], child: Mapping[int, float]) -> float | None:
    """The parent's mean minus the child's, over the seeds they share."""
    shared = parent.keys() & child.keys()
    if not shared:
        return None
    return sum(parent[index] - child[index] for index in shared) / len(shared)
