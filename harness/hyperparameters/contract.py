"""What every `train.py` must have, whoever edited it."""

from __future__ import annotations

import ast

from harness.errors import ContractError
from harness.hyperparameters.constants import read
from harness.hyperparameters.text import parse, shown

MAX_BYTES = 256 * 1024


def check(source: str, scale: str) -> None:
    """Raises `ContractError`, naming line and problem, unless the text keeps the contract of `train.py`.

    It is at most 256 KB, parses, defines `build_model` of one argument and `main` at its top level, has the
    guard `if __name__ == "__main__":`, and its hyperparameters can be read. That the contract is kept says
    nothing of what the code does; sandbox and scorer see to that.
    """
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise ContractError("train.py is not valid UTF-8", "Write it as plain Python in UTF-8.") from None
    if size > MAX_BYTES:
        raise ContractError(
            f"train.py has {size:,} bytes, more than {MAX_BYTES:,}", "Keep it to what one reader takes in."
        )
    tree = parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    _check_build_model(source, functions.get("build_model"))
    if "main" not in functions:
        raise ContractError("train.py has no function main", "Define main() at the top level: build, train, save.")
    if not any(_is_guard(node) for node in tree.body):
        raise ContractError(
            'train.py has no `if __name__ == "__main__":`',
            "Call main() behind it: the scorer imports the file.",
        )
    read(source, scale)


def _check_build_model(source: str, function: ast.FunctionDef | None) -> None:
    if function is None:
        raise ContractError(
            "train.py has no function build_model",
            "Define build_model(config) at the top level; it returns the model.",
        )
    given = function.args
    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    if count != 1 or given.vararg or given.kwarg or given.kwonlyargs:
        raise ContractError(
            f"train.py, line {function.lineno}: build_model must take exactly one argument"
            f"{shown(source, function.lineno)}",
            "Write def build_model(config): and pass all it needs in config.",
        )


def _is_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
        return False
    test = node.test
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [test.left, test.comparators[0]]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    texts = [side.value for side in sides if isinstance(side, ast.Constant)]
    return names == ["__name__"] and texts == ["__main__"]
