"""Hyperparameters read from a text: what they are, and where their literals stand."""

from __future__ import annotations

import ast
import functools
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import ContractError
from harness.hyperparameters.ranges import (
    FORMS,
    SCALES,
    BadRange,
    Choice,
    Range,
    Value,
    parse_range,
    reads_like_range,
)
from harness.hyperparameters.text import parse, shown, tokens


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One named number, word or switch at the top of a `train.py`, as one scale sees it."""

    name: str
    value: Value
    comment: str
    """What it is; the range is not in it."""
    range: Range | Choice | None
    """None: not searched at this scale."""
    line: int


@dataclass(frozen=True, slots=True)
class _Found:
    """An assignment at the top level to an upper-case name."""

    name: str
    line: int
    literals: dict[str, ast.expr]
    """By scale; the same node for both where there is no `pick`. Empty: no literal."""
    comment: str
    bracket: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """Where one literal stands in a text, in bytes."""

    name: str
    start: int
    end: int


@functools.lru_cache(maxsize=8)  # one text is asked about several times in a row
def _read(source: str, scale: str) -> tuple[Hyperparameter, ...]:
    return tuple(_hyperparameter(source, found, scale) for found in _found(source) if found.literals)


def read(source: str, scale: str) -> list[Hyperparameter]:
    """The hyperparameters of a `train.py` with their values at a scale, in the order of the file.

    Upper-case names whose value is no literal number, word or switch are passed over, unless a range says
    that they were meant. Raises `ContractError`, naming and showing the line, for a range that is malformed
    or leaves out the current value, a name given twice, or a text that does not parse.
    """
    return list(_read(source, scale))


def spans(source: str, scale: str) -> list[Span]:
    """Where the literals of a scale stand, in the order of the text. Raises `ContractError`."""
    starts = _line_starts(source.encode())
    placed = []
    for found in _found(source):
        if found.literals:
            node = found.literals[scale]
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
            placed.append(Span(found.name, start, end))
    return sorted(placed, key=lambda span: span.start)


def _hyperparameter(source: str, found: _Found, scale: str) -> Hyperparameter:
    value = _value(found.literals[scale])
    assert value is not None
    limits = None
    if found.bracket is not None:
        try:
            limits = parse_range(found.bracket, scale, value)
        except BadRange as error:
            problem = f"range [{found.bracket}] of {found.name}: {error}"
            raise _broken(source, found.line, problem, FORMS) from None
    return Hyperparameter(found.name, value, found.comment, limits, found.line)


def _found(source: str) -> list[_Found]:
    tree = parse(source)
    comments = _comments(source)
    found: dict[str, _Found] = {}
    for node, name, assigned in _upper_case(tree):
        comment = _comment_of(node, comments)
        prose, bracket = _split(comment)
        item = _Found(name, node.lineno, _literals(source, name, assigned), prose, bracket)
        before = found.get(name)
        if before and (item.literals or before.literals):
            raise _broken(
                source,
                node.lineno,
                f"{name} stands on line {before.line} already",
                "Give each hyperparameter one value, in one place.",
            )
        if bracket is not None and not item.literals:
            raise _broken(
                source,
                node.lineno,
                f"{name} has a range but is no literal",
                "Write a number, a word in quotes, True or False, or pick(gpu=..., cpu=...) of such.",
            )
        found[name] = item
    return list(found.values())


def _upper_case(tree: ast.Module) -> Iterator[tuple[ast.stmt, str, ast.expr]]:
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:
                yield node, target.id, node.value


def _literals(source: str, name: str, assigned: ast.expr) -> dict[str, ast.expr]:
    """The literal of each scale; empty if there is none. Raises `ContractError` for half a `pick`."""
    if not _is_pick(assigned):
        return {} if _value(assigned) is None else dict.fromkeys(SCALES, assigned)
    assert isinstance(assigned, ast.Call)
    arguments = {keyword.arg: keyword.value for keyword in assigned.keywords if keyword.arg}
    if set(arguments) != set(SCALES) or assigned.args:
        raise _broken(
            source,
            assigned.lineno,
            f"pick of {name} needs both scales, by name",
            f"Write {name} = pick(gpu=..., cpu=...).",
        )
    if any(_value(argument) is None for argument in arguments.values()):
        return {}
    return arguments


def _is_pick(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (isinstance(called, ast.Name) and called.id == "pick") or (
        isinstance(called, ast.Attribute) and called.attr == "pick"
    )


def _value(node: ast.expr) -> Value | None:
    """The value of a literal number, word or switch; None for any other expression."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand)
        return -inner if isinstance(inner, int | float) and not isinstance(inner, bool) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    return None


@dataclass(frozen=True, slots=True)
class _Comment:
    text: str
    alone: bool
    """Nothing else stands on its line."""


def _comments(source: str) -> dict[int, _Comment]:
    """Comments by line."""
    comments: dict[int, _Comment] = {}
    for token in tokens(source):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = _Comment(token.string.lstrip("#!: ").strip(), alone)
    return comments


def _comment_of(node: ast.stmt, comments: dict[int, _Comment]) -> str:
    """The lines directly above a statement, then what stands behind it."""
    above: list[str] = []
    line = node.lineno - 1
    while (comment := comments.get(line)) and comment.alone and not _is_heading(comment.text):
        above.insert(0, comment.text)
        line -= 1
    inside = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return " ".join(above + [comments[line].text for line in inside if line in comments])


def _is_heading(text: str) -> bool:
    return text.startswith(("--", "==")) or not any(character.isalnum() for character in text)


def _split(comment: str) -> tuple[str, str | None]:
    """Prose of a comment, and the text of its last bracket if that reads like a range."""
    start, end = comment.rfind("["), comment.rfind("]")
    if start < 0 or end < start or not reads_like_range(comment[start + 1 : end]):
        return comment, None
    prose = " ".join((comment[:start].rstrip() + " " + comment[end + 1 :].lstrip()).split())
    for mark in ",.;:)":
        prose = prose.replace(f" {mark}", mark)
    prose = prose.replace(",,", ",")
    return prose.rstrip(" ,;:"), comment[start + 1 : end].strip()


def _broken(source: str, line: int, problem: str, mend: str) -> ContractError:
    return ContractError(f"train.py, line {line}: {problem}{shown(source, line)}", mend)


def _line_starts(text: bytes) -> list[int]:
    """Byte offset of each line, split as Python's parser splits."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts
