"""How val_bpb moves with the hyperparameters: a small additive Gaussian process, exact and noise-aware.

The score of an experiment is modelled as

    constant + level of its code + effects of single hyperparameters + effect of its seeds + noise / seeds

so a score of two seeds counts for more than a lucky one, what an edit of the code gave is not put down to a
learning rate, and the difference of two settings depends on what differs between them alone. Additive
kernels: Duvenaud, Nickisch and Rasmussen, "Additive Gaussian Processes", 2011. Variances are fitted by
maximum a posteriori.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.researchers.search.evidence import Point
from harness.researchers.search.space import Array, Space
from harness.researchers.search.variances import Rest, fit_variances

LENGTH = 0.3
"""Of a range, over which an effect keeps its direction."""
NOMINAL = 0.3
"""Correlation of two words or switches."""
KNEE = 0.05
"""Bits per byte. Losses beyond it count by their logarithm: how bad a bad setting is matters little."""
FITTED = 128
"""Points that the variances are fitted to, spread evenly over the past; predictions use all."""


@dataclass(frozen=True)
class Forecast:
    """Of some candidates against the incumbent, in bits per byte."""

    gain: Array
    """Expected, positive is better."""
    error: Array
    """Standard deviation of the gain."""
    feasible: Array
    """Chance that the setting trains at all."""

    @property
    def improvement(self) -> Array:
        """Expected positive part of the gain, times the chance that there is one."""
        from scipy.special import ndtr

        error = np.maximum(self.error, 1e-9)
        z = self.gain / error
        density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        result: Array = (self.gain * ndtr(z) + error * density) * self.feasible
        return result


class Model:
    """Fitted to the past; `forecast` compares candidates with the incumbent."""

    def __init__(self, space: Space, points: Sequence[Point], incumbent: Point) -> None:
        self._space = space
        self._nominal = space.nominal
        self._start = space.encode(incumbent.values)
        scored = [point for point in points if point.scores]
        self.scored = len(scored)
        running = [point for point in points if point.running]
        self._failed = self._positions([point for point in points if point.failed])
        self._trained = self._positions(scored)
        self._seen = np.vstack([self._trained, self._positions(running)])
        zero = float(np.mean(list(incumbent.scores.values()))) if incumbent.scores else 0.0
        means = np.array([np.mean(list(point.scores.values())) - zero for point in scored])
        target = np.where(means > KNEE, KNEE * (1 + np.log(np.maximum(means, KNEE) / KNEE)), means)
        self._fit(Rest.of([*scored, *running]), target)

    @property
    def relevance(self) -> Array:
        """Of each hyperparameter, the standard deviation of its effect over its range, in bits per byte."""
        return np.sqrt(self._weights)

    def forecast(self, candidates: Array) -> Forecast:
        """Of settings as positions, [n, hyperparameters]."""
        toward = np.zeros((len(candidates), len(self._seen)))
        apart = np.zeros(len(candidates))
        for d, weight in enumerate(self._weights):  # candidates differ from the start in few places: look there alone
            rows = np.flatnonzero(candidates[:, d] != self._start[d])
            places, which = np.unique(candidates[rows, d], return_inverse=True)
            start = self._start[d : d + 1]
            moved = self._kernel(d, places, self._seen[:, d]) - self._kernel(d, start, self._seen[:, d])
            toward[rows] += weight * moved[which]
            apart[rows] += weight * (1 - self._kernel(d, places, start)[which, 0])
        variance = 2 * apart - ((toward @ self._inverse) * toward).sum(axis=1)
        return Forecast(
            -(toward @ self._alpha),
            np.sqrt(np.maximum(variance, 0.0)),
            self._chance(candidates),
        )

    def _positions(self, points: Sequence[Point]) -> Array:
        if not points:
            return np.empty((0, len(self._space)))
        return np.stack([self._space.encode(point.values) for point in points])

    def _kernels(self, places: Array) -> Array:
        """Of each hyperparameter alone, among some settings: [hyperparameters, n, n]."""
        return np.stack([self._kernel(d, places[:, d], places[:, d]) for d in range(len(self._space))])

    def _kernel(self, d: int, a: Array, b: Array) -> Array:
        """Matern 5/2 along one hyperparameter: [len(a), len(b)]."""
        distance: Array = np.abs(a[:, None] - b[None]) * (np.sqrt(5) / LENGTH)
        if self._nominal[d]:
            return np.where(distance > 0, NOMINAL, 1.0)
        return (1 + distance + distance * distance / 3) * np.exp(-distance)

    def _fit(self, rest: Rest, target: Array) -> None:
        """Variances from what is scored. What runs is taken to come out as forecast: it moves no mean, but what
        is proposed beside it asks another question (the kriging believer of parallel optimisation)."""
        n = len(target)
        picked = np.unique(np.linspace(0, n - 1, min(n, FITTED)).astype(int)) if n else np.arange(0)
        kernels = self._kernels(self._trained[picked])
        variances = fit_variances(kernels, rest.take(picked), target[picked])
        self._weights = variances.effects
        covariance = np.tensordot(self._weights, self._kernels(self._seen), 1)
        covariance += rest.covariance(variances)
        self._alpha = np.zeros(len(self._seen))
        self._alpha[:n] = np.linalg.solve(covariance[:n, :n], target)
        self._inverse = np.linalg.inv(covariance)

    def _chance(self, candidates: Array) -> Array:
        """Share of what trained among what was tried near a setting; 1 where nothing failed."""
        failed = _near(candidates, self._failed)
        good = 1 + _near(candidates, self._trained)
        result: Array = good / (good + 2 * failed)
        return result


def _near(candidates: Array, tried: Array) -> Array:
    apart = ((candidates[:, None, :] - tried[None]) ** 2).sum(axis=2)
    result: Array = np.exp(-apart / (2 * 0.25**2)).sum(axis=1)
    return result
