"""The suffix-swap audit: a model is causal if the loss at a position does not change when all text after it does.

Pure: numbers in, numbers out. Rows that were scored are sent again, to a fresh server that knows nothing of the first,
with everything after a secret cut replaced by other text of the same split. The target at the cut is the original
one, which that server was never sent; what the model had read of it before, it cannot read now.

Whole chunks are sent, in the shapes in which they were scored, since kernels choose by shape. One cut a row: what
stands before it is the model's to read, what stands after it is gone. Some other chunks follow unchanged, last of
all: what differs there is noise.

The loss at the cut tells what the model gains from what follows. That of a few positions before it must stay the same
too: they add evidence where tokens depend on each other only here and there, as where they compete for places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16]
Places = NDArray[np.int64]

SWAPPED = 1 / 4
"""Share of the chunks that are sent again with other endings."""
REPEATED = 1 / 16
"""Share of the chunks that are sent again as they were."""
LEAST = 1e-3
"""Nats below which no difference counts as dependence."""
NOISIEST = 0.02
"""Nats of noise above which nothing can be said of a model."""
REACH = 16
"""Positions that are compared in a row: the cut, and those before it."""
NO_CUT = -1

NON_CAUSAL = (
    "the model reads what comes after: with other text after {cuts} cuts, the loss {where} changed by {size:.4f} nats "
    "on average ({mean:+.4f} with its sign); at most {threshold:.4f} is taken for noise. Likely causes: attention "
    "without a causal mask, a window or shift that is off by one, normalisation over the sequence or the batch, or a "
    "mixture of experts in which tokens compete for places (expert choice, capacity dropping), where later tokens "
    "push out earlier ones. Token choice without dropping is causal."
)
NOISY = (
    "score must repeat: the same rows gave other logits in a second process ({floor:.4f} nats of noise; at most "
    "{most} is taken). Likely causes: dropout or sampling that eval() does not switch off, random weights that are "
    "not in the checkpoint, or state kept between calls."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent again. Made once pass 1 is over, by chance that no process under test can know."""

    chunks: tuple[Places, ...]
    """Rows of each chunk that is sent with other endings, in the order of sending."""
    repeats: tuple[Places, ...]
    """Rows of each chunk that is sent unchanged afterwards; others than those above, of which a model that keeps
    state between calls has a memory by then."""
    cuts: Places
    """Of every scored row, [rows]: the position whose loss is compared, the last that keeps its token where the row is
    changed; NO_CUT where none is."""
    inputs: Tokens
    """What is sent in place of the row, [rows, context]; of rows that are not changed, the row itself."""

    @classmethod
    def draw(cls, text: Tokens, scored: NDArray[np.bool_], chunks: Sequence[Places], rng: np.random.Generator) -> Plan:
        """Of `text` [rows, context + 1] whose targets count where `scored` [rows, context] says so.

        A cut is at a position whose target counts and stands in the row itself; cuts are spread evenly over the
        positions. The new text is a piece of a row that is not audited, from any place in it.
        """
        order = [chunks[i] for i in rng.permutation(len(chunks))]
        swapped = tuple(order[: _share(len(chunks), SWAPPED)])
        repeats = tuple(order[-_share(len(chunks), REPEATED) :])
        audited, sent = np.concatenate(swapped), np.unique(np.concatenate(swapped + repeats))
        cuts = np.full(len(text), NO_CUT, np.int64)
        cuts[sent] = _spread(scored[sent, :-1], rng)
        others = np.setdiff1d(np.arange(len(text)), audited)
        inputs = text[:, :-1].copy()
        for row in audited:
            length = inputs.shape[1] - 1 - int(cuts[row])
            donor = text[rng.choice(others if len(others) else audited)]
            start = rng.integers(len(donor) - length + 1)
            inputs[row, cuts[row] + 1 :] = donor[start : start + length]
        return cls(swapped, repeats, cuts, inputs)

    def places(self, rows: Places) -> Compared:
        """What is compared in these rows of a chunk."""
        grid = self.cuts[rows][:, None] - np.arange(REACH)
        inside = (grid >= 0) & (self.cuts[rows] != NO_CUT)[:, None]
        within, steps = np.nonzero(inside)
        return Compared(within, grid[within, steps], steps == 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """Places of a chunk, each array [places]."""

    rows: Places
    """Within the chunk."""
    positions: Places
    cut: NDArray[np.bool_]
    """Whether the place is a cut, or before one."""


@dataclass(frozen=True, slots=True)
class Losses:
    """In nats, at the places that are compared, each array [places]."""

    now: NDArray[np.float32]
    before: NDArray[np.float32]
    """In pass 1."""
    cut: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Losses]) -> Losses:
        """Of several chunks."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    @property
    def at_cuts(self) -> Losses:
        """Without the places before them."""
        return Losses(self.now[self.cut], self.before[self.cut], self.cut[self.cut])

    @property
    def rows(self) -> int:
        """Each has one cut."""
        return int(self.cut.sum())

    @property
    def changes(self) -> NDArray[np.float64]:
        return self.now.astype(np.float64) - self.before


@dataclass(frozen=True, slots=True)
class Change:
    """How losses differ from those of pass 1, in nats."""

    mean: float
    """With its sign: positive where the model had gained from what follows."""
    size: float
    """Mean without signs."""
    floor: float
    """What unchanged rows differ by: the mean without signs, and four standard errors on top."""

    @classmethod
    def of(cls, swapped: Losses, repeated: Losses) -> Change:
        """From rows with another ending, and from unchanged rows; none count as zero.

        Places of one row are not independent of each other: in the standard error a row counts once.
        """
        changes, noise = swapped.changes, np.abs(repeated.changes)
        if not len(changes):
            return cls(0.0, 0.0, 0.0)
        floor = 0.0
        if len(noise):
            floor = float(noise.mean() + 4 * noise.std() * np.sqrt(1 / repeated.rows + 1 / swapped.rows))
        return cls(float(changes.mean()), float(np.abs(changes).mean()), floor)

    @property
    def threshold(self) -> float:
        """Nats above which a change is no noise."""
        return max(LEAST, self.floor)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the audit measured."""

    cuts: int
    at_cuts: Change
    near_cuts: Change
    """At the cuts and up to REACH - 1 positions before."""

    @classmethod
    def of(cls, swapped: Losses, repeated: Losses) -> Finding:
        """From rows with another ending, and from unchanged ones."""
        return cls(
            swapped.rows,
            Change.of(swapped.at_cuts, repeated.at_cuts),
            Change.of(swapped, repeated),
        )

    @property
    def gap(self) -> float:
        """Nats a token that the model gained from what follows."""
        return self.at_cuts.mean

    @property
    def causal(self) -> bool:
        """No more changes than noise does."""
        return all(change.size <= change.threshold for change in (self.at_cuts, self.near_cuts))

    @property
    def noisy(self) -> bool:
        """The score does not repeat, so that little follows from small differences."""
        return self.near_cuts.floor > NOISIEST

    def explain(self) -> str:
        """Why there is no score."""
        if self.causal:
            return NOISY.format(floor=self.near_cuts.floor, most=NOISIEST)
        at = self.at_cuts.size > self.at_cuts.threshold
        change, where = (self.at_cuts, "at the cut") if at else (self.near_cuts, "just before them")
        return NON_CAUSAL.format(
            cuts=self.cuts, where=where, size=change.size, mean=change.mean, threshold=change.threshold
        )


def _share(count: int, share: float) -> int:
    return max(1, round(count * share))


def _spread(possible: NDArray[np.bool_], rng: np.random.Generator) -> Places:
    """One place of each row where `possible` [rows, places] holds, evenly over all of them; NO_CUT if it has none."""
    quantiles = (rng.permutation(len(possible)) + rng.random(len(possible))) / len(possible)
    found = np.full(len(possible), NO_CUT, np.int64)
    for row, (mask, quantile) in enumerate(zip(possible, quantiles, strict=True)):
        places = np.flatnonzero(mask)
        if len(places):
            found[row] = places[int(quantile * len(places))]
    return found
