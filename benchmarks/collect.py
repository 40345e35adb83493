"""Settings worth training once, to learn how the score answers to the hyperparameters of a `train.py`."""

from __future__ import annotations

import numpy as np

from harness import hyperparameters
from harness.hyperparameters import Value
from harness.researchers.search.space import Array, Space, at

NEAR = (1, 4)
"""How many hyperparameters a near setting changes."""
STEP = 0.2
"""Standard deviation of half of the near moves, as a share of the range; the others go anywhere."""


def designs(source: str, scale: str, n: int, seed: int) -> list[dict[str, Value]]:
    """`n` different settings of the searched hyperparameters, the incumbent's own first.

    Half of them change one to four hyperparameters of the incumbent, so that what search meets is dense; half change
    five or more, at positions of a scrambled Sobol sequence. The two kinds take turns: any prefix is a fair mix. The
    same arguments give the same list.
    """
    from scipy.stats import qmc

    space = Space.of(hyperparameters.read(source, scale))
    start = space.encode({})
    random = np.random.default_rng(seed)
    spread = qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random(2 ** int(np.ceil(np.log2(4 * n + 1))))
    present = {item.name: item.value for item in space.items}
    found = {tuple(present.values()): present}
    for place in spread:
        if len(found) >= n:
            break
        wide = len(found) % 2 == 0 and len(space) > NEAR[1]
        low, high = (NEAR[1] + 1, len(space)) if wide else (NEAR[0], min(NEAR[1], len(space)))
        changed = random.choice(len(space), random.integers(low, high + 1), replace=False)
        target = place if wide else _near(start, place, random)
        values = {
            item.name: at(item, float(target[index])) if index in changed else item.value
            for index, item in enumerate(space.items)
        }
        found.setdefault(tuple(values.values()), values)
    return list(found.values())


def _near(start: Array, place: Array, random: np.random.Generator) -> Array:
    """Half of the positions a local step away, half anywhere."""
    local = np.clip(start + random.normal(0, STEP, len(start)), 0, 1)
    moved: Array = np.where(random.random(len(start)) < 0.5, local, place)
    return moved
