"""A stand-in for training: the response of val_bpb to the hyperparameters, fitted to real trials.

    python benchmarks/surrogate.py benchmarks/data/cpu_trials.csv

A Gaussian process with one Matern 5/2 kernel over all hyperparameters (a length scale for each: automatic relevance
determination), a constant, and noise, all by maximum marginal likelihood. It is fitted to log(val_bpb - floor), which
tames diverged runs and is undone in the forecast. A setting fails if the tried setting next to it, in the distances
of the fit, failed. Printed: what ten-fold cross-validation says of the fit, over all trials and over the better half,
where a search spends its time. Search itself models the score in another way (additive, with priors), so it is not
tested on its own assumption.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import hyperparameters
from harness.hyperparameters import Hyperparameter, Value
from harness.researchers.search.space import Array, Space

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "data" / "cpu_trials.csv"
FOLDS = 10
FAILED = frozenset({"crash", "timeout", "oom", "invalid", "bad_artifact"})


@dataclass(frozen=True)
class Trial:
    """One row of the table."""

    values: dict[str, Value]
    seed: int
    val_bpb: float | None
    outcome: str


@dataclass(frozen=True)
class Quality:
    """Of cross-validated forecasts."""

    r2: float
    rmse: float
    """In bits per byte."""
    trials: int

    def __str__(self) -> str:
        return f"R2 {self.r2:.3f}, RMSE {self.rmse:.4f} bits per byte over {self.trials} trials"


@dataclass(frozen=True)
class Fit:
    """Variances and length scales in the fitted units, by their logarithms."""

    logs: Array
    """Signal, noise, then one length scale a hyperparameter."""

    @property
    def scales(self) -> Array:
        return np.exp(self.logs[2:])


class Surrogate:
    """`truth` is the noiseless score of a setting, `fails` whether it trains at all, `noise` one trial's error."""

    def __init__(self, space: Space, trials: Sequence[Trial]) -> None:
        self.space = space
        good = [trial for trial in trials if trial.val_bpb is not None and trial.outcome == "ok"]
        self._at = np.stack([space.encode(trial.values) for trial in good])
        self._scores: Array = np.array([trial.val_bpb for trial in good], np.float64)
        self._floor = float(self._scores.min()) - 0.1
        self._target = np.log(self._scores - self._floor)
        self._level = float(self._target.mean())
        self._fit = _fitted(self._at, self._target - self._level)
        known = _covariance(self._at, self._fit)
        self._alpha: Array = np.asarray(np.linalg.solve(known, self._target - self._level), np.float64)
        failed = [space.encode(trial.values) for trial in trials if trial.outcome in FAILED]
        self._failed = np.stack(failed) if failed else np.empty((0, len(space)))
        fitted = np.exp(self._fit.logs[1] / 2) * (np.median(self._scores) - self._floor)
        self.noise = _replicate_noise(good) or float(fitted)

    def truth(self, values: Mapping[str, Value]) -> float:
        """In bits per byte."""
        return float(self._forecast(self.space.encode(values)[None], self._at, self._alpha)[0])

    def fails(self, values: Mapping[str, Value]) -> bool:
        """Whether the nearest setting that was tried failed."""
        if not len(self._failed):
            return False
        place = self.space.encode(values)[None]
        return bool(_squared(place, self._failed, self._fit).min() < _squared(place, self._at, self._fit).min())

    def cross_validated(self) -> tuple[Quality, Quality]:
        """Over all trials, and over the better half. Trials of one setting stay in one fold."""
        _, setting = np.unique(self._at, axis=0, return_inverse=True)
        fold = np.random.default_rng(0).permutation(setting.max() + 1)[setting] % FOLDS
        guess = np.zeros(len(self._scores))
        for index in range(FOLDS):
            inside = fold != index
            known = _covariance(self._at[inside], self._fit)
            alpha = np.asarray(np.linalg.solve(known, self._target[inside] - self._level), np.float64)
            guess[~inside] = self._forecast(self._at[~inside], self._at[inside], alpha)
        better = self._scores <= np.median(self._scores)
        return _quality(self._scores, guess), _quality(self._scores[better], guess[better])

    def relevance(self) -> list[tuple[str, float]]:
        """Hyperparameters by how soon the score changes along them: share of a range, the shortest first."""
        names = [item.name for item in self.space.items]
        return sorted(zip(names, self._fit.scales.tolist(), strict=True), key=lambda pair: pair[1])

    def _forecast(self, places: Array, known: Array, alpha: Array) -> Array:
        mean: Array = np.exp(self._level + _kernel(places, known, self._fit) @ alpha) + self._floor
        return mean


def load(path: Path, items: Sequence[Hyperparameter]) -> list[Trial]:
    """The table of trials; columns that name no present hyperparameter are left alone, missing ones are as present."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_trial(row, items) for row in csv.DictReader(file)]


def _trial(row: Mapping[str, str], items: Sequence[Hyperparameter]) -> Trial:
    values = {item.name: _typed(row[item.name], item.value) for item in items if row.get(item.name, "") != ""}
    score = float(row["val_bpb"]) if row["val_bpb"] else None
    return Trial(values, int(row["seed"]), score, row["outcome"])


def _typed(text: str, like: Value) -> Value:
    if isinstance(like, bool):
        return text == "True"
    if isinstance(like, int):
        return round(float(text))
    return float(text) if isinstance(like, float) else text


def _squared(a: Array, b: Array, fit: Fit) -> Array:
    near, far = a / fit.scales, b / fit.scales
    squared: Array = np.maximum((near**2).sum(1)[:, None] + (far**2).sum(1)[None] - 2 * near @ far.T, 0.0)
    return squared


def _kernel(a: Array, b: Array, fit: Fit) -> Array:
    distance = np.sqrt(5 * _squared(a, b, fit))
    value: Array = np.exp(fit.logs[0]) * (1 + distance + distance**2 / 3) * np.exp(-distance)
    return value


def _covariance(at: Array, fit: Fit) -> Array:
    value: Array = _kernel(at, at, fit) + np.exp(fit.logs[1]) * np.eye(len(at))
    return value


def _fitted(at: Array, target: Array) -> Fit:
    """Maximum marginal likelihood from three starts, with a weak pull of length scales towards two ranges."""
    from scipy.optimize import minimize

    d = at.shape[1]
    apart = (at[:, None, :] - at[None]) ** 2
    spread = float(np.log(target.var() + 1e-12))

    def loss(logs: Array) -> tuple[float, Array]:
        fit = Fit(logs)
        distance = np.sqrt(5 * _squared(at, at, fit))
        noise = np.exp(logs[1])
        signal = _kernel(at, at, fit)
        lower = np.linalg.cholesky(signal + (noise + 1e-9) * np.eye(len(at)))
        inverse = np.linalg.inv(lower)
        inverse = inverse.T @ inverse
        alpha = inverse @ target
        outer = inverse - np.outer(alpha, alpha)
        slope = np.exp(logs[0]) * (5 / 3) * (1 + distance) * np.exp(-distance) * outer
        pull = (logs[2:] - np.log(2)) / 1.5**2
        gradient = np.concatenate(
            [
                [0.5 * (outer * signal).sum(), 0.5 * noise * np.trace(outer)],
                0.5 * np.einsum("ij,ijd->d", slope, apart) / fit.scales**2 + pull,
            ]
        )
        value = 0.5 * target @ alpha + np.log(np.diag(lower)).sum() + 0.5 * ((logs[2:] - np.log(2)) * pull).sum()
        return float(value), gradient

    bounds = [(spread - 4, spread + 4), (spread - 12, spread + 1), *[(np.log(0.1), np.log(50.0))] * d]
    runs = []
    for length in (0.7, 2.0, 6.0):
        start = np.array([spread, spread - 3, *[np.log(length)] * d])
        runs.append(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}))
    return Fit(min(runs, key=lambda run: float(run.fun)).x)


def _replicate_noise(trials: Sequence[Trial]) -> float | None:
    """Pooled standard deviation of trials of one setting; None below five degrees of freedom."""
    groups: dict[tuple[tuple[str, Value], ...], list[float]] = {}
    for trial in trials:
        if trial.val_bpb is not None:
            groups.setdefault(tuple(sorted(trial.values.items())), []).append(trial.val_bpb)
    freedom = sum(len(group) - 1 for group in groups.values())
    if freedom < 5:
        return None
    return float(np.sqrt(sum(np.var(group) * len(group) for group in groups.values()) / freedom))


def _quality(scores: Array, guess: Array) -> Quality:
    error = float(((scores - guess) ** 2).mean())
    return Quality(1 - error / float(scores.var()), error**0.5, len(scores))


def main() -> None:
    """Fit, cross-validate, print."""
    parser = argparse.ArgumentParser(description="Fit a response of val_bpb to real trials and say how good it is.")
    parser.add_argument("data", type=Path, nargs="?", default=DATA)
    parser.add_argument("--train", type=Path, default=ROOT / "train.py", help="whose ranges to use")
    parser.add_argument("--scale", default="cpu", choices=["cpu", "gpu"])
    asked = parser.parse_args()
    items = hyperparameters.read(asked.train.read_text(encoding="utf-8"), asked.scale)
    surrogate = Surrogate(Space.of(items), load(asked.data, items))
    every, better = surrogate.cross_validated()
    print(f"all trials:      {every}")
    print(f"the better half: {better}")
    print(f"noise of a trial: {surrogate.noise:.4f} bits per byte")
    print("the score changes soonest along: " + ", ".join(f"{n} {s:.2f}" for n, s in surrogate.relevance()[:8]))


if __name__ == "__main__":
    main()
