"""How much of the scatter of scores is effect, seed and noise: variances by maximum a posteriori."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.researchers.search.evidence import Point
from harness.researchers.search.space import Array

EFFECT, NOISE, SEED = 0.02, 0.006, 0.002
"""Prior medians of standard deviations, in bits per byte."""
TOGETHER, APART, NOISE_WIDTH, SEED_WIDTH = 2.0, 1.0, 1.5, 1.0
"""Standard deviations of the priors of log variances. All effects may be far larger or smaller than the median, as one
scale's are than another's; that one of them is and the others are not takes evidence."""
LEVEL = 0.1
"""Standard deviation of the common level, and of the level of one code, in bits per byte."""
STEPS = 15


@dataclass(frozen=True)
class Variances:
    """In squared bits per byte."""

    effects: Array
    """Of each hyperparameter."""
    noise: float
    """Of one trial."""
    seed: float
    """Of what all trials of one seed share."""


@dataclass(frozen=True)
class Rest:
    """What scores share apart from hyperparameters: code, seeds, number of trials."""

    code: Array
    """1 where two experiments have the same code: [n, n]."""
    seeds: Array
    """Weight of each seed in the mean of an experiment: [n, seeds]. Zero for one that still runs."""
    trials: Array

    @classmethod
    def of(cls, points: Sequence[Point]) -> Rest:
        _, codes = np.unique([point.code for point in points], return_inverse=True)
        indices = sorted({index for point in points for index in point.scores})
        had = np.array([[index in point.scores for index in indices] for point in points], float)
        trials = np.maximum(had.reshape(len(points), -1).sum(axis=1), 1)
        return cls((codes[:, None] == codes[None]).astype(float), had / trials[:, None], trials)

    def take(self, picked: NDArray[np.int_]) -> Rest:
        """Of some of the experiments."""
        return Rest(self.code[np.ix_(picked, picked)], self.seeds[picked], self.trials[picked])

    def covariance(self, variances: Variances) -> Array:
        """Of the scores, apart from what hyperparameters add: [n, n]."""
        shared = variances.seed * self.seeds @ self.seeds.T
        result: Array = LEVEL**2 * (1 + self.code) + shared + np.diag(variances.noise / self.trials)
        return result


def fit_variances(kernels: Array, rest: Rest, target: Array) -> Variances:
    """The most probable variances. `kernels` is [hyperparameters, n, n], `target` the n scores."""
    from scipy.optimize import minimize

    d, n = len(kernels), len(target)
    centre = 2 * np.log(np.array([EFFECT] * d + [NOISE, SEED]))
    precision = _prior(d)
    if n < 2:
        return _variances(centre)
    parts = np.concatenate([kernels, np.diag(1 / rest.trials)[None], (rest.seeds @ rest.seeds.T)[None]])
    level = LEVEL**2 * (1 + rest.code)

    def loss(logs: Array) -> tuple[float, Array]:
        scaled = np.exp(logs)
        lower = np.linalg.cholesky(np.tensordot(scaled, parts, 1) + level)
        inverse = np.linalg.inv(lower)
        inverse = inverse.T @ inverse
        alpha = inverse @ target
        pull = precision @ (logs - centre)
        value = 0.5 * (target @ alpha + pull @ (logs - centre)) + np.log(np.diag(lower)).sum()
        slope = np.tensordot(parts, inverse - np.outer(alpha, alpha), 2)
        return float(value), 0.5 * scaled * slope + pull

    bounds = list(zip(centre - 7, centre + 7, strict=True))
    best = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return _variances(best.x)


def _prior(effects: int) -> Array:
    """Inverse covariance of the logarithms of all variances before anything is seen."""
    covariance = np.diag([APART**2] * effects + [NOISE_WIDTH**2, SEED_WIDTH**2])
    covariance[:effects, :effects] += TOGETHER**2
    return np.linalg.inv(covariance)


def _variances(logs: Array) -> Variances:
    scaled = np.exp(logs)
    return Variances(scaled[:-2], float(scaled[-2]), float(scaled[-1]))
