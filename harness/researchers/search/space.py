"""The searched hyperparameters as a unit cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.hyperparameters import Choice, Hyperparameter, Range, Value

Array = NDArray[np.float64]
Values = dict[str, Value]


@dataclass(frozen=True)
class Space:
    """Hyperparameters that have a range; a setting is a vector of positions in [0, 1], one for each."""

    items: tuple[Hyperparameter, ...]

    @classmethod
    def of(cls, items: Sequence[Hyperparameter]) -> Space:
        return cls(tuple(item for item in items if item.range is not None))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def nominal(self) -> NDArray[np.bool_]:
        """Of each hyperparameter, whether its options have no order: words and switches."""
        return np.array(
            [isinstance(i.range, Choice) and isinstance(i.range.options[0], str | bool) for i in self.items],
            bool,
        )

    def fits(self, values: Mapping[str, Value]) -> bool:
        """Whether a setting can be placed: options that are gone cannot, numbers outside are moved to the edge."""
        return all(
            values[i.name] in i.range
            if isinstance(i.range, Choice)
            else isinstance(values[i.name], int | float) and not isinstance(values[i.name], bool)
            for i in self.items
            if i.name in values
        )

    def encode(self, values: Mapping[str, Value]) -> Array:
        """Positions of a setting; one that it lacks is taken to be as in the text that is searched."""
        return np.array([_position(item, values.get(item.name, item.value)) for item in self.items])

    def encode_near(self, start: Values, settings: Sequence[Values]) -> Array:
        """Positions of settings that differ from a start in little: [settings, hyperparameters]."""
        places = np.tile(self.encode(start), (len(settings), 1))
        for row, values in enumerate(settings):
            for column, item in enumerate(self.items):
                if values[item.name] != start[item.name]:
                    places[row, column] = _position(item, values[item.name])
        return places

    def decode(self, positions: Array) -> Values:
        """The setting at some positions, as it would be written in the file."""
        return {item.name: at(item, p) for item, p in zip(self.items, positions.tolist(), strict=True)}

    @property
    def size(self) -> float:
        """How many settings there are; infinite with a float among them."""
        total = 1.0
        for item in self.items:
            limits = item.range
            if isinstance(limits, Choice):
                total *= len(limits.options)
            elif isinstance(limits, Range):
                total *= limits.high - limits.low + 1 if limits.integer else float("inf")
        return total


def at(item: Hyperparameter, position: float) -> Value:
    """The value of one hyperparameter at a position in [0, 1]."""
    if isinstance(item.range, Choice):
        last = len(item.range.options) - 1
        return item.range.options[round(min(1.0, max(0.0, position)) * last)]
    assert item.range is not None
    return item.range.at(position)


def options(item: Hyperparameter, most: int = 64) -> list[Value]:
    """Values worth a look, in order: all options, all whole numbers of a short range, else a grid."""
    if isinstance(item.range, Choice):
        return list(item.range.options)
    assert item.range is not None
    return list(dict.fromkeys(item.range.at(k / (most - 1)) for k in range(most)))


def _position(item: Hyperparameter, value: Value) -> float:
    if isinstance(item.range, Choice):
        return item.range.options.index(value) / max(1, len(item.range.options) - 1)
    assert item.range is not None
    assert isinstance(value, int | float)
    inside = min(item.range.high, max(item.range.low, value))
    return min(1.0, max(0.0, item.range.position(inside)))
