"""The shape of the package, held by a test: imports run one way, and what must stay quick imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harness"

ROOMS = [
    {"types", "errors", "settings", "text"},
    {"ruler", "machine", "libraries", "hyperparameters", "summary", "figures", "proof"},
    {"ledger", "git", "judge", "corpora", "researchers", "sandbox", "tsv"},
    {"clock", "standings"},
    {"feeder", "scoring", "told", "history"},
    {"runners", "picture", "plain", "live", "board"},
    {"books", "reading"},
    {"loop"},
    {"start"},
    {"checks"},
    {"run", "night", "leaderboard", "show", "score", "doctor"},
]
"""From the ground up: a module may import from its own floor and those below it."""

STRANGERS = [
    ("researchers", {"runners", "ledger", "git", "loop", "scoring", "judge"}),
    ("ledger", {"git", "runners", "corpora", "researchers"}),
    ("git", {"ledger", "runners", "corpora", "researchers"}),
    ("judge", {"ledger", "git", "corpora", "researchers", "sandbox"}),
    ("loop", {"corpora", "researchers", "runners", "sandbox", "scoring", "feeder", "live"}),
    ("corpora", {"ledger", "git", "researchers", "sandbox"}),
]
"""Rooms that must not know one another, whatever the floor."""


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "harness" else node.module for alias in node.names
            }
    return {room(name) for name in found if name.startswith("harness.")} - {""}


def files() -> list[tuple[str, Path]]:
    return [(path.relative_to(PACKAGE).with_suffix("").parts[0], path) for path in sorted(PACKAGE.rglob("*.py"))]


def floor(name: str) -> int:
    return next(level for level, names in enumerate(ROOMS) if name in names)


@pytest.mark.parametrize(("name", "path"), [pytest.param(n, p, id=str(p.relative_to(PACKAGE))) for n, p in files()])
def test_imports_run_downwards(name: str, path: Path) -> None:
    if name == "__init__":
        assert not imports(path)
        return
    for imported in imports(path) - {name}:
        assert floor(imported) <= floor(name), f"{name} imports {imported}, which stands above it"


@pytest.mark.parametrize(("name", "strangers"), STRANGERS)
def test_rooms_that_must_not_know_one_another_do_not(name: str, strangers: set[str]) -> None:
    for at, path in files():
        if at == name:
            assert not imports(path) & strangers, path


@pytest.mark.parametrize("command", ["run", "leaderboard", "show", "score", "doctor"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('harness.{command}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'pandas', 'numpy', 'pyarrow', 'scipy', 'anthropic', 'openai', 'git'}\n"
        "found = sorted(heavy & set(sys.modules))\n"
        "print('HEAVY', found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("module", ["feeder", "scoring.scorer"])
def test_a_process_of_every_trial_starts_without_torch(module: str) -> None:
    code = f"import sys, harness.{module}\nprint(sorted({{'torch', 'optuna', 'pandas', 'rich'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_environment_and_the_command_line_are_read_by_commands_alone() -> None:
    allowed = {"run", "leaderboard", "show", "score", "doctor"}
    processes = {"feeder.py", "scorer.py", "server.py", "supervisor.py", "probe.py"}  # their argument is the harness's
    for name, path in files():
        if name in allowed or path.name in processes:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "argv"):
                assert not isinstance(node.value, ast.Name) or node.value.id not in ("os", "sys"), (
                    f"{path}:{node.lineno}"
                )
