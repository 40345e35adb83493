"""The constants of `prepare.py`, read without running it, and the form of a budget."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from harness.errors import ContractError, UsageError

KINDS = ("wall", "cpu", "steps")
FORM = "Write it as wall:SECONDS, cpu:SECONDS or steps:N, as in cpu:30."


@dataclass(frozen=True, slots=True)
class Budget:
    """What one trial may spend."""

    kind: str
    """`wall` or `cpu` (of the process tree): seconds; `steps`: optimizer steps."""
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:.12g}"


def parse_budget(text: str) -> Budget:
    """`cpu:30` as a budget. Raises UsageError, naming the form, for all but a finite amount above 0."""
    kind, _, number = text.strip().partition(":")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if kind not in KINDS or not math.isfinite(amount) or amount <= 0:
        raise UsageError(f"budget {text!r} is none", FORM)
    if kind == "steps" and amount != int(amount):
        raise UsageError(f"budget {text!r} is not a whole number of steps", FORM)
    return Budget(kind, amount)


@dataclass(frozen=True, slots=True)
class Scale:
    """One column of the ruler."""

    context: int
    """Tokens a row, in training and in scoring."""
    vocab: int
    budget: str
    """Of one trial, where none is asked for."""
    val_tokens: int
    """Targets of `val` that are scored."""


@dataclass(frozen=True, slots=True)
class Ruler:
    """All scales of a `prepare.py`."""

    scales: Mapping[str, Scale]

    @classmethod
    def read(cls, text: str) -> Ruler:
        """Read `SCALES` out of the text of a `prepare.py`. Raises ContractError that names the line."""
        node = _find_scales(text)
        try:
            found = ast.literal_eval(node)
            scales = {str(name): _scale(column) for name, column in found.items()}
        except (ValueError, TypeError, AttributeError, UsageError) as error:
            raise ContractError(
                f"prepare.py, line {node.lineno}: SCALES cannot be read: {error}",
                "It is a literal dict of scales, each with context, vocab, budget and val_tokens.",
            ) from error
        return cls(scales)

    def scale(self, name: str) -> Scale:
        """The column of that name. Raises UsageError that lists the names there are."""
        if name not in self.scales:
            raise UsageError(f"no scale {name!r}", f"There are: {', '.join(self.scales)}.")
        return self.scales[name]

    @property
    def hash(self) -> str:
        """12 hex digits of the constants; comments, layout and code do not change it."""
        plain = {name: asdict(scale) for name, scale in self.scales.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _find_scales(text: str) -> ast.expr:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ContractError(
            f"prepare.py, line {error.lineno}: {error.msg}", "Restore it: git checkout prepare.py"
        ) from error
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "SCALES" for target in targets):
            assert node.value is not None
            return node.value
    raise ContractError("prepare.py, line 1: it has no SCALES", "Restore it: git checkout prepare.py")


def _scale(column: Mapping[str, object]) -> Scale:
    """One column, checked. Raises TypeError or ValueError that says what is wrong with it."""
    if set(column) != {"context", "vocab", "budget", "val_tokens"}:
        raise ValueError(f"a scale has the fields {sorted(column)}")
    counts = {name: column[name] for name in ("context", "vocab", "val_tokens")}
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, not a count")
    if not isinstance(column["budget"], str):
        raise TypeError("a budget is a text")
    parse_budget(column["budget"])
    return Scale(**column)  # type: ignore[arg-type]
