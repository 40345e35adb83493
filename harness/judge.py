"""The judge: trials in, judgement out. Pure functions; nothing here reads a clock, a file or a random number.

The i-th trials of candidate and parent share the i-th seed, so only scores of the same index are compared. A
candidate that is not lower with its first seed is discarded after one trial; else it is trained until it has as
many seeds as asked for, and kept if its mean is lower than its parent's by more than the noise: the spread of
the baseline over its own seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.types import Judgement, Verdict

Scores = Mapping[int, float]
"""val_bpb by index of the seed."""


def spread(baseline: Scores) -> float:
    """The noise: highest minus lowest score of one text over its seeds. Needs at least two."""
    if len(baseline) < 2:
        raise ValueError("the spread of fewer than two trials is unknown")
    return max(baseline.values()) - min(baseline.values())


def gain(candidate: Scores, parent: Scores) -> float | None:
    """Parent's mean minus the candidate's over the seeds that both have, in bits per byte; None if there is none."""
    shared = candidate.keys() & parent.keys()
    if not shared:
        return None
    return sum(parent[i] - candidate[i] for i in sorted(shared)) / len(shared)


def judge(candidate: Scores, parent: Scores, noise: float | None, seeds: int) -> Judgement:
    """What to do with a candidate on the evidence so far.

    `noise` is the baseline's spread, None while it is unknown: then nothing is decided that needs it. `seeds`
    is the number of trials after which the decision falls; a seed that failed for the parent decides nothing. A
    judgement without a verdict asks for one more trial, or for the noise where the candidate has all its trials.
    """
    better = gain(candidate, parent)
    complete = len(candidate) >= seeds
    if better is None and complete and noise is not None:
        return Judgement(Verdict.DISCARD, "it has no seed in common with its parent")
    if better is None:
        return Judgement(None, "no seed in common yet")
    shared = len(candidate.keys() & parent.keys())
    if not better > 0:
        return Judgement(Verdict.DISCARD, f"{-better:.4f} worse than its parent over {_trials(shared)}", better)
    if not complete:
        return Judgement(None, f"{better:.4f} better over {_trials(shared)}: train one more seed", better)
    if noise is None:
        return Judgement(None, "the noise of the baseline is not known yet", better)
    if better > noise:
        reason = f"{better:.4f} better over {_trials(shared)}; seeds alone move the baseline by {noise:.4f}"
        return Judgement(Verdict.KEEP, reason, better)
    reason = f"{better:.4f} better over {_trials(shared)}: within the noise of {noise:.4f}"
    return Judgement(Verdict.DISCARD, reason, better)


def _trials(count: int) -> str:
    return f"{count} seed" + ("s" if count > 1 else "")
