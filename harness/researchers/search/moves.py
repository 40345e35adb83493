"""Candidates: settings that differ from the incumbent in one to four hyperparameters."""

from __future__ import annotations

import numpy as np

from harness.researchers.search.space import Array, Space, Values, at, options

MOST = 4
"""Hyperparameters that one proposal changes, at most: a person must be able to say what it tried."""
STEP = 0.15
"""Standard deviation of a local move, as a share of the range."""
WIDE = 0.3
"""Share of moves that go anywhere in the range."""


class Moves:
    """Draws candidates around a start; the order of draws is that of the random generator alone."""

    def __init__(self, space: Space, start: Values, appeal: Array, random: np.random.Generator) -> None:
        self._space = space
        self._start = start
        self._at = space.encode(start)
        self._appeal = appeal / appeal.sum()
        self._random = random

    def group(self) -> list[int]:
        """Which to free: one to four, the more appealing ones more often."""
        most = min(MOST, len(self._space))
        return sorted(self._random.choice(len(self._space), self._random.integers(1, most + 1), False, self._appeal))

    def names(self, group: list[int]) -> list[str]:
        return [self._space.items[index].name for index in group]

    def draw(self) -> Values:
        """A local or wide change of a few."""
        positions = self._at.copy()
        for index in self.group():
            positions[index] = self._moved(index)
        return self._snap(positions)

    def singles(self) -> list[Values]:
        """Each hyperparameter alone, to its other values, or to some steps of both directions."""
        found = []
        for item in self._space.items:
            present = self._start[item.name]
            found += [{**self._start, item.name: value} for value in options(item, 12) if value != present]
        return found

    def joined(self, ranked: list[Values]) -> list[Values]:
        """The best single changes put together, two to four at a time, in the order of their rank."""
        best: dict[str, Values] = {}
        for values in ranked:
            changed = [name for name in values if values[name] != self._start[name]]
            if len(changed) == 1 and changed[0] not in best:
                best[changed[0]] = {changed[0]: values[changed[0]]}
        parts = list(best.values())[: 2 * MOST]
        found = []
        for _ in range(min(40, 2 ** len(parts))):
            count = int(self._random.integers(2, MOST + 1))
            if len(parts) >= count:
                picked = self._random.choice(len(parts), count, False)
                merged = dict(self._start)
                for index in sorted(picked.tolist()):
                    merged.update(parts[index])
                found.append(merged)
        return found

    def _moved(self, index: int) -> float:
        if self._space.nominal[index] or self._random.random() < WIDE:
            return float(self._random.random())
        return float(np.clip(self._at[index] + self._random.normal(0, STEP), 0, 1))

    def _snap(self, positions: Array) -> Values:
        """As written in a file, with what did not move left exactly as it is."""
        moved = positions != self._at
        return {
            item.name: at(item, float(positions[i])) if moved[i] else self._start[item.name]
            for i, item in enumerate(self._space.items)
        }
