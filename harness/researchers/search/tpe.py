"""Suggestions of Optuna's tree-structured Parzen estimator, by ask and tell."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.hyperparameters import Choice, Hyperparameter, Value
from harness.researchers.search.evidence import Point
from harness.researchers.search.space import Space, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 8
"""Scored experiments below which TPE has nothing to say."""
RECENT = 100
"""Experiments told, the last ones; older ones lie far from the incumbent, and each costs time."""


def suggestions(
    space: Space, points: Sequence[Point], start: Values, freed: Sequence[Sequence[str]], seed: int
) -> list[Values]:
    """One setting for each group of freed hyperparameters; the others stay as at `start`.

    The study is built anew from the points: scored ones with their mean, failed ones as infeasible, running
    ones as running, which TPE takes for bad (constant liar). Empty below `STARTUP` scored points.
    """
    if sum(1 for point in points if point.scores) < STARTUP:
        return []
    with _quiet():
        import optuna

        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP)
        study = optuna.create_study(sampler=sampler, storage=optuna.storages.InMemoryStorage())
        distributions = {item.name: _distribution(item) for item in space.items}
        study.add_trials([_told(space, point, distributions) for point in points[-RECENT:]])
        found = []
        for names in freed:
            fixed = {name: value for name, value in start.items() if name not in names}
            study.sampler = optuna.samplers.PartialFixedSampler(fixed, sampler)
            asked = space.decode(space.encode(study.ask(distributions).params))
            found.append({**start, **{name: asked[name] for name in names}})
        return found


def _told(space: Space, point: Point, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    params: dict[str, Value] = space.decode(space.encode(point.values))
    if point.running:
        return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
    if point.failed:
        return create_trial(
            state=TrialState.PRUNED, params=params, distributions=distributions, constraints={"trains": 1.0}
        )
    value = sum(point.scores.values()) / len(point.scores)
    return create_trial(value=value, params=params, distributions=distributions, constraints={"trains": 0.0})


def _distribution(item: Hyperparameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(item.range, Choice):
        return CategoricalDistribution(item.range.options)
    assert item.range is not None
    if item.range.integer:
        return IntDistribution(int(item.range.low), int(item.range.high), log=item.range.log)
    return FloatDistribution(item.range.low, item.range.high, log=item.range.log)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's news and its warnings of experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
