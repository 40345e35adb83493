"""Titles and hypotheses: what is changed, what the knob is, and what earlier experiments showed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.hyperparameters import Hyperparameter, Value
from harness.researchers.search.evidence import Change

LONGEST = 79
MORE = ("none", "one", "two", "three")
SPELLING = {
    "adam": "Adam",
    "adamw": "AdamW",
    "cooldown": "cool-down",
    "eps": "epsilon",
    "kv": "KV",
    "lr": "LR",
    "mlp": "MLP",
    "muon": "Muon",
    "qk": "QK",
    "rope": "RoPE",
    "ve": "VE",
    "warmup": "warm-up",
}
CATEGORIES = {
    "schedule": {"warmup", "warm", "cooldown", "cool", "schedule", "floor", "anneal", "final"},
    "batch": {"batch", "batches", "accumulation"},
    "optimizer": {
        "lr",
        "rate",
        "decay",
        "beta",
        "betas",
        "beta1",
        "beta2",
        "momentum",
        "muon",
        "adam",
        "adamw",
        "eps",
    },
    "architecture": {
        *(
            "depth",
            "width",
            "dim",
            "aspect",
            "head",
            "heads",
            "layers",
            "window",
            "embedding",
            "embeddings",
            "rope",
        ),
        *(
            "base",
            "mlp",
            "softcap",
            "cap",
            "residual",
            "skip",
            "init",
            "tied",
            "gate",
            "model",
            "context",
            "expansion",
        ),
    },
}
"""By words of the name, then of the comment; the first that fits."""
FAILURES = {"oom": "ran out of memory", "timeout": "ran out of time", "crash": "crashed"}


@dataclass(frozen=True, slots=True)
class Step:
    """One hyperparameter's part of a proposal."""

    item: Hyperparameter
    new: Value

    @property
    def up(self) -> bool | None:
        """Whether it is raised; None for words and switches."""
        return direction(self.item.value, self.new)


def direction(old: Value, new: Value) -> bool | None:
    """Whether a change raises a number; None where there is no more and less."""
    if isinstance(old, bool | str) or isinstance(new, bool | str):
        return None
    return new > old


def title(steps: Sequence[Step]) -> str:
    """As in `Matrix LR 0.04 -> 0.055, cool-down 0.5 -> 0.65`; below 80 characters."""
    for count in range(len(steps), 0, -1):
        parts = [f"{spoken(s.item.name)} {_shown(s.item.value)} -> {_shown(s.new)}" for s in steps[:count]]
        rest = f", and {MORE[len(steps) - count]} more" if count < len(steps) else ""
        text = ", ".join(parts) + rest
        if len(text) <= LONGEST:
            return text[0].upper() + text[1:]
    return f"{steps[0].item.name[: LONGEST - 12]} changed"


def hypothesis(steps: Sequence[Step], past: Sequence[Change], forecast: str) -> str:
    """What is done to which knobs, what the past says of the first that it says something of, and the forecast."""
    facts = [fact for step in steps if (fact := _fact(step, past))]
    untried = [step.item.name for step in steps if not any(step.item.name in change.new for change in past)]
    sentences = [_deed(steps)]
    if facts:
        sentences.append(facts[0])
    elif untried:
        sentences.append(_untried(untried, len(steps)))
    if forecast:
        sentences.append(forecast)
    return " ".join(sentences)


def category(steps: Sequence[Step]) -> str:
    """The category that most of the changes belong to; the first of them if they are even."""
    found = [_category(step.item) for step in steps]
    return max(found, key=lambda name: (found.count(name), -found.index(name)))


def spoken(name: str) -> str:
    """A name as said: `MATRIX_LR` is `matrix LR`."""
    return " ".join(SPELLING.get(word, word) for word in name.lower().split("_") if word)


def _category(item: Hyperparameter) -> str:
    for text in (item.name.replace("_", " "), item.comment):
        words = {word.strip(".,;:()'\"").replace("-", "") for word in text.lower().split()}
        for name, marks in CATEGORIES.items():
            if words & marks:
                return name
    return "hyperparameters"


def _deed(steps: Sequence[Step]) -> str:
    verbs = {True: "raise", False: "lower", None: "set"}
    parts = []
    for step in steps:
        what = _what(step.item)
        named = f"{step.item.name} ({what})" if what else step.item.name
        parts.append(f"{verbs[step.up]} {named}" + (f" to {_shown(step.new)}" if step.up is None else ""))
    text = _listed(parts)
    return text[0].upper() + text[1:] + "."


def _fact(step: Step, past: Sequence[Change]) -> str:
    """What the past says of one step: its own direction first, then the opposite one; empty if nothing."""
    moved = [change for change in past if step.item.name in change.old]
    told = sorted((change for change in moved if _known(change)), key=lambda change: len(change.new) > 1)
    same = [change for change in told if _same(step, change)]
    other = [change for change in told if not _same(step, change)]
    if same:
        alone = [change for change in same if len(change.new) == 1] or same
        best = max(alone, key=lambda change: -1.0 if change.gain is None else change.gain)
        return f"{_report(step.item.name, best)}; {_then(step, best)}."
    if other:
        report = _report(step.item.name, other[0])
        if any(_same(step, change) for change in moved):
            return f"{report}."
        rest = f"{_shown(step.new)} is untried" if step.up is None else "the opposite direction is untried"
        return f"{report}; {rest}."
    return ""


def _then(step: Step, seen: Change) -> str:
    old, tried = seen.old[step.item.name], seen.new[step.item.name]
    if seen.gain is not None and seen.gain > 0:
        return "this goes the same way again"
    if isinstance(tried, str | bool) or isinstance(old, str | bool):
        return "the rest has changed since"
    smaller = abs(float(_number(step.new)) - float(_number(step.item.value))) < abs(float(tried) - float(old))
    return "a smaller step may be what it needs" if smaller else "a larger step will tell a slope from noise"


def _report(name: str, change: Change) -> str:
    """As in `Raising DEPTH from 4 to 6 lost 0.021 in #7`."""
    up = direction(change.old[name], change.new[name])
    verb = "Setting" if up is None else "Raising" if up else "Lowering"
    where = f"from {_shown(change.old[name])} to {_shown(change.new[name])}"
    others = len(change.new) - 1
    beside = f", beside {others} other change{'s' * (others > 1)}," if others else ""
    if change.gain is None:
        return f"{verb} {name} {where}{beside} {FAILURES.get(change.outcome, 'failed')} in #{change.id}"
    done = "gained" if change.gain > 0 else "lost"
    return f"{verb} {name} {where}{beside} {done} {amount(change.gain)} in #{change.id}"


def _untried(names: Sequence[str], of: int) -> str:
    if of == 1:
        return "No experiment has moved it yet."
    if len(names) == of:
        return "No experiment has moved any of them yet."
    return f"No experiment has moved {_listed(names)} yet."


def _known(change: Change) -> bool:
    return change.gain is not None or bool(change.outcome)


def _same(step: Step, change: Change) -> bool:
    name = step.item.name
    if step.up is None:
        return change.new[name] == step.new
    return direction(change.old[name], change.new[name]) == step.up


def _what(item: Hyperparameter) -> str:
    """The first clause of a comment, if it is short enough to stand in a sentence."""
    clause = item.comment
    for mark in (". ", "; ", ": ", " ("):
        clause = clause.split(mark)[0]
    clause = clause.strip().rstrip(".")
    return clause if len(clause) <= 70 else clause.split(",")[0][:70].strip()


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _shown(value: Value) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)


def amount(gain: float) -> str:
    """Bits per byte without a sign, with two significant digits or three places."""
    return f"{abs(gain):.3f}" if abs(gain) >= 0.0095 else f"{abs(gain):.4f}"
