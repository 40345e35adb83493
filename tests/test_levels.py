"""The promises of docs/trust.md, tried from inside every sandbox this machine has, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.errors import SandboxError
from harness.sandbox import levels, probe
from harness.sandbox.levels import PROMISED
from harness.sandbox.view import View, for_training

ROOT = Path(__file__).parents[1]
LIMITS = levels.bounds("cpu", 4096, 1)
ORDINARY = 65534
"""The user `nobody`."""
PYTHON = "/usr/bin/python3"
"""The system's: the one that these tests run with may lie where no ordinary user can go."""
ASK = """
import json, os, sys
from harness.sandbox import levels
from harness.sandbox.view import for_training
limits = levels.bounds("cpu", 4096, 1)
sandbox, reason = levels.build(int(sys.argv[1]), for_training(os.environ), limits, os.environ)
print(json.dumps({"reason": reason, "found": {} if reason else levels.promises(sandbox, os.environ)}))
"""


@cache
def as_ourselves(level: int) -> Mapping[str, str]:
    sandbox, reason = levels.build(level, for_training(os.environ), LIMITS, os.environ)
    if reason:
        pytest.skip(reason)
    return levels.promises(sandbox, os.environ)


@pytest.fixture(scope="session")
def as_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory):
    """Asks a level of a copy of the package that anybody may read."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None or not _new_enough(PYTHON):
        pytest.skip("needs setpriv, and a Python 3.11 of the system")
    place = Path("/tmp") / f"autoresearch-levels-{os.getpid()}"
    shutil.copytree(ROOT / "harness", place / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    packaging = find_spec("packaging")
    assert packaging is not None
    assert packaging.origin is not None
    shutil.copytree(Path(packaging.origin).parent, place / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
    (place / "own").mkdir(mode=0o700)
    os.chown(place / "own", ORDINARY, ORDINARY)
    as_user = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    env = {"PATH": os.defpath, "PYTHONPATH": str(place), "TMPDIR": str(place / "own"), "HOME": "/nonexistent"}

    @cache
    def ask(level: int) -> Mapping[str, str]:
        argv = [*as_user, PYTHON, "-c", ASK, str(level)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=place)
        assert not done.returncode, done.stderr
        said = json.loads(done.stdout)
        if said["reason"]:
            pytest.skip(said["reason"])
        return said["found"]

    yield ask
    shutil.rmtree(place)


def _new_enough(python: str) -> bool:
    code = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    return os.path.exists(python) and not subprocess.run([python, "-c", code], check=False).returncode


CASES = [(level, promise) for level in (3, 2, 1) for promise in sorted(PROMISED[level])]


@pytest.mark.parametrize(("level", "promise"), CASES)
def test_a_promise_is_kept(level: int, promise: str) -> None:
    assert as_ourselves(level)[promise] == ""


@pytest.mark.parametrize(("level", "promise"), CASES)
def test_a_promise_is_kept_for_an_ordinary_user(as_an_ordinary_user, level: int, promise: str) -> None:
    assert as_an_ordinary_user(level)[promise] == ""


@pytest.mark.parametrize("promise", sorted(PROMISED[3] - PROMISED[1]))
def test_the_probe_notices_a_promise_that_is_not_kept(promise: str) -> None:
    """Without walls each attack succeeds: a probe that finds nothing there would find nothing anywhere."""
    assert as_ourselves(1)[promise] != ""


def test_each_level_promises_all_that_the_lower_ones_do() -> None:
    assert PROMISED[1] < PROMISED[2] < PROMISED[3] == frozenset(probe.PROMISES)


def test_the_table_of_the_documents_is_what_is_promised() -> None:
    text = (ROOT / "docs/trust.md").read_text()
    rows = re.findall(r"^\| (\w[\w ]+) \| (yes|no) \| (yes|no) \| (yes|no) \|$", text, re.M)
    told = {level: {name for name, *kept in rows if kept[3 - level] == "yes"} for level in (3, 2, 1)}
    assert told == {level: set(promised) for level, promised in PROMISED.items()}


def test_the_highest_level_that_holds_is_chosen(sandbox) -> None:
    if sandbox.level == 1:
        pytest.skip(f"this machine has none: {sandbox.why}")
    assert levels.choose(os.environ, LIMITS).level == sandbox.level


def test_a_level_that_is_not_there_is_named_with_its_reason() -> None:
    nowhere = {**os.environ, "PATH": "/nonexistent"}
    chosen = levels.choose(nowhere, LIMITS, unsandboxed=True)
    assert chosen.level < 3
    assert "bubblewrap is not installed" in chosen.why


def test_no_sandbox_at_all_must_be_asked_for() -> None:
    with pytest.raises(SandboxError, match="--allow-unsandboxed") as error:
        levels.choose(os.environ, LIMITS, highest=1)
    assert "bubblewrap" in error.value.mend
    assert levels.choose(os.environ, LIMITS, highest=1, unsandboxed=True).level == 1


@pytest.mark.parametrize(
    ("places", "texts", "refused"),
    [
        (["libraries/results"], [], "libraries/results"),
        (["checkout"], ["corpus"], None),
        ([], ["libraries/text"], "libraries/text"),
        ([], ["checkout"], "checkout"),
    ],
    ids=["a place among the libraries", "a checkout with an environment", "text among them", "text around them"],
)
def test_what_must_not_be_shown_is_refused_if_it_is(
    tmp_path: Path, places: list[str], texts: list[str], refused: str | None
) -> None:
    view = View(read=(str(tmp_path / "libraries"), str(tmp_path / "checkout/.venv/lib/torch")))
    with nullcontext() if refused is None else pytest.raises(SandboxError, match=refused):
        view.protect([tmp_path / name for name in places], [tmp_path / name for name in texts])


def test_a_hidden_folder_is_not_shown_but_for_its_named_parts(tmp_path: Path) -> None:
    for name in ("lib/packages/wanted", "lib/packages/other", "lib/standard"):
        (tmp_path / name).mkdir(parents=True)
    packages = tmp_path / "lib/packages"
    view = View((str(tmp_path / "lib"), str(packages / "wanted")), (str(packages),))
    shown = {name: view.shows(tmp_path / "lib" / name) for name in ("standard", "packages/wanted", "packages/other")}
    assert shown == {"standard": True, "packages/wanted": True, "packages/other": False}
    assert set(view.pieces().read) == {str(tmp_path / "lib/standard"), str(packages / "wanted")}


def test_of_what_is_installed_only_the_needs_of_training_are_shown() -> None:
    view = for_training(os.environ)
    folders = {name: Path(str(find_spec(name).origin)).parent for name in ("torch", "optuna", "pytest", "rich")}
    assert {name: view.shows(folder) for name, folder in folders.items()} == {
        "torch": True,
        "optuna": False,
        "pytest": False,
        "rich": False,
    }


def test_neither_home_nor_checkout_is_shown(tmp_path: Path) -> None:
    for private in (Path.home() / ".bashrc", ROOT / "harness", Path.home() / ".cache", Path("/etc/passwd"), tmp_path):
        assert not for_training(os.environ).shows(private), private


def test_a_program_below_the_wanted_version_is_said_to_be_too_old(tmp_path: Path) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho --unshare-all\n")
    old.chmod(0o755)
    _, reason = levels.build(3, for_training(os.environ), LIMITS, {**os.environ, "PATH": str(tmp_path)})
    assert "too old" in reason


def test_a_broken_promise_takes_the_level_away(sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sandbox.level < 3:
        pytest.skip("needs bubblewrap")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the probe's bait is laid
    leaky = replace(sandbox, view=sandbox.view.with_files([tmp_path]))
    assert "reads nothing outside" in levels.examine(leaky, os.environ)
