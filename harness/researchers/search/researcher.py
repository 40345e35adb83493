"""The researcher `search`: local moves and, in turn, TPE suggest; a noise-aware model of the past chooses."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import hyperparameters
from harness.errors import ContractError, NoProposal
from harness.researchers.search import tpe, words
from harness.researchers.search.evidence import Change, Point, Reader, changes
from harness.researchers.search.model import Model
from harness.researchers.search.moves import MOST, Moves
from harness.researchers.search.space import Space, Values, options
from harness.types import History, Proposal

DRAWS = 240
"""Local and wide candidates a proposal."""
TURN = 3
"""Every so many proposals come from TPE, which does not believe in additive effects as the model does. Left to
the model alone, none of its suggestions would ever be the most promising."""
ASKS = 6
"""Suggestions of TPE in its turn."""
UNTRIED = 0.01
"""Bits per byte: what a hyperparameter that was never moved is taken to be good for when groups are drawn."""
ENUMERABLE = 4096
"""Settings up to which a used-up space is gone through one by one."""
CAREFUL, FEW, REACH = 20, 2, 0.5
"""Below so many scored experiments the model knows only that far corners are unknown: changes stay few, and within
this share of a range."""
BELIEVED = 4
"""Scored experiments below which a forecast is not worth stating."""


@dataclass(frozen=True, slots=True)
class Idea:
    """A ranked candidate."""

    values: Values
    gain: float
    error: float


@dataclass(frozen=True, slots=True)
class Task:
    """All that ranking needs, gathered on the event loop: the ledger is not asked from another thread."""

    source: str
    incumbent: Point
    points: tuple[Point, ...]
    space: Space

    @property
    def start(self) -> Values:
        return {item.name: item.value for item in self.space.items}

    @property
    def known(self) -> set[tuple[object, ...]]:
        """Settings of this code that were tried or run."""
        names = [item.name for item in self.space.items]
        same = [point for point in self.points if point.code == self.incumbent.code]
        return {tuple(point.values.get(name) for name in names) for point in same}


class Search:
    """Changes one to four hyperparameters of the incumbent at a time, inside the ranges that its comments give.

    All it knows is rebuilt from the history at each call, so a restart forgets nothing; the same seed and
    history give the same first proposal. Texts that it handed out and that are not in the history yet count
    as running: asked twice in a row, it proposes two different things.
    """

    name = "search"

    def __init__(self, scale: str, seed: int) -> None:
        self._scale = scale
        self._seed = seed
        self._reader = Reader(scale)
        self._handed_out: dict[str, Point] = {}
        """By text."""

    async def propose(self, history: History) -> Proposal:
        """One experiment from the incumbent. Raises `NoProposal` if nothing can be searched or all was tried."""
        task = self._task(history)
        ideas = await asyncio.to_thread(self._rank, task)
        for idea in itertools.chain(ideas, _all_settings(task)):
            source = hyperparameters.edit(task.source, self._scale, _changed(task, idea.values))
            if source in self._handed_out or history.tried(source) is not None:
                continue
            self._handed_out[source] = replace(
                task.incumbent, id=-1, values={**task.incumbent.values, **idea.values}, scores={}
            )
            return self._proposal(task, idea, source)
        raise NoProposal(
            "every setting within the ranges of train.py was tried",
            "Widen a range in train.py, give further hyperparameters one, or let another researcher go on.",
        )

    def _task(self, history: History) -> Task:
        incumbent = history.incumbent()
        source = history.source(incumbent.id)
        try:
            space = Space.of(hyperparameters.read(source, self._scale))
        except ContractError as error:
            raise NoProposal(f"the incumbent cannot be searched: {error.problem}", error.mend) from None
        if not len(space):
            raise NoProposal(
                f"no hyperparameter of train.py has a range at scale {self._scale}",
                "Write one behind its comment, as in `# learning rate [0.005..0.2 log]`.",
            )
        points = [point for point in self._reader.points(history) if space.fits(point.values)]
        start = next((point for point in points if point.id == incumbent.id), None)
        if start is None:
            raise NoProposal("the incumbent has no score to start from", "Wait until its trials are done.")
        recorded = {(point.code, frozenset(point.values.items())) for point in points}
        self._handed_out = {
            text: point
            for text, point in self._handed_out.items()
            if (point.code, frozenset(point.values.items())) not in recorded
        }
        return Task(source, start, (*points, *self._handed_out.values()), space)

    def _rank(self, task: Task) -> list[Idea]:
        """Candidates that were not tried, the most promising first. Heavy: runs in a thread."""
        turn = len(task.points)
        random = np.random.default_rng([self._seed, turn])
        model = Model(task.space, task.points, task.incumbent)
        moves = Moves(task.space, task.start, _appeal(task, model), random)
        singles = [idea.values for idea in _ranked(task, model, moves.singles())]
        drawn = [moves.draw() for _ in range(DRAWS)]
        candidates = singles + drawn + moves.joined(singles)
        if model.scored < CAREFUL:
            candidates = [values for values in candidates if _is_small(task, values)] or candidates
        ideas = _ranked(task, model, candidates)
        return [*_asked(task, model, moves, random), *ideas] if turn % TURN == 0 else ideas

    def _proposal(self, task: Task, idea: Idea, source: str) -> Proposal:
        changed = _changed(task, idea.values)
        steps = [words.Step(item, changed[item.name]) for item in task.space.items if item.name in changed]
        scored = sum(1 for point in task.points if point.scores)
        past: list[Change] = changes(list(task.points))
        told = scored >= BELIEVED
        return Proposal(
            title=words.title(steps),
            hypothesis=words.hypothesis(steps, past, _forecast(idea, scored) if told else ""),
            source=source,
            parent=task.incumbent.id,
            category=words.category(steps),
            expected_gain=idea.gain if told else None,
        )


def _is_small(task: Task, values: Values) -> bool:
    """Whether a setting lies near the incumbent: few changes, none far along its range."""
    changed = [item for item in task.space.items if values[item.name] != task.start[item.name]]
    here, there = task.space.encode(task.start), task.space.encode_near(task.start, [values])[0]
    far = np.abs(there - here)[~task.space.nominal].max(initial=0.0)
    return len(changed) <= FEW and far <= REACH


def _ranked(task: Task, model: Model, candidates: Sequence[Values]) -> list[Idea]:
    """Without doubles and what was tried, by expected improvement."""
    known = task.known
    fresh: dict[tuple[object, ...], Values] = {}
    for values in candidates:
        key = tuple(values[item.name] for item in task.space.items)
        if key not in known:
            fresh.setdefault(key, values)
    if not fresh:
        return []
    settings = list(fresh.values())
    forecast = model.forecast(task.space.encode_near(task.start, settings))
    order = np.argsort(-forecast.improvement, kind="stable")
    return [Idea(settings[i], float(forecast.gain[i]), float(forecast.error[i])) for i in order]


def _asked(task: Task, model: Model, moves: Moves, random: np.random.Generator) -> list[Idea]:
    """What TPE suggests for some groups of hyperparameters, the most promising of it first."""
    groups = [moves.names(moves.group()) for _ in range(ASKS)]
    seed = int(random.integers(2**31))
    return _ranked(task, model, tpe.suggestions(task.space, task.points, task.start, groups, seed))


def _appeal(task: Task, model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """How often each hyperparameter is drawn: by what moving it can do, those never moved by a fair guess."""
    moved = {name for change in changes(list(task.points)) for name in change.new}
    fair = [0.0 if item.name in moved else UNTRIED for item in task.space.items]
    return np.maximum(model.relevance, fair) + UNTRIED / 4


def _changed(task: Task, values: Values) -> Values:
    return {name: value for name, value in values.items() if value != task.start[name]}


def _all_settings(task: Task) -> Iterator[Idea]:
    """What is left of a small space, after the ranked candidates: fewest changes first."""
    if task.space.size > ENUMERABLE:
        return
    others = {
        item.name: [value for value in options(item, ENUMERABLE) if value != item.value] for item in task.space.items
    }
    for count in range(1, min(MOST, len(task.space)) + 1):
        for names in itertools.combinations(others, count):
            for values in itertools.product(*(others[name] for name in names)):
                yield Idea({**task.start, **dict(zip(names, values, strict=True))}, 0.0, 0.0)


def _forecast(idea: Idea, scored: int) -> str:
    if idea.error == 0:
        return ""
    sign = "gain" if idea.gain > 0 else "loss"
    sure = f"a {sign} of {words.amount(idea.gain)} +- {words.amount(idea.error)}"
    if idea.gain > idea.error:
        return f"The {scored} scored experiments point to {sure}."
    return f"The {scored} scored experiments leave it open: {sure}."
