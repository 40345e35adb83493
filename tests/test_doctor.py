"""`python -m harness.doctor`, run for real in checkouts of many kinds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import checks, doctor, machine, proof
from harness.checks import CHECKS, Place, Row, State, examine
from harness.doctor import shown
from harness.errors import HarnessError
from harness.ledger import Ledger

HARNESS = Path(doctor.__file__).parents[1]
KEY = "sk-ant-0123456789abcdef"
TRAIN = '''"""A model."""

# how wide the model is [16..128 int]
WIDTH = 64


def build_model(config):
    return WIDTH


def main():
    build_model({})


if __name__ == "__main__":
    main()
'''
PREPARE = """
SCALES = {
    "gpu": {"context": 2048, "vocab": 8192, "budget": "wall:300", "val_tokens": 2_097_152},
    "cpu": {"context": 256, "vocab": 2048, "budget": "cpu:30", "val_tokens": 98_304},
}
"""


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Someone", "-c", "user.email=someone@localhost", "-c", "commit.gpgSign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout as a person has it, in a folder with a hostile name."""
    folder = tmp_path / "été à la mer"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "prepare.py").write_text(PREPARE, encoding="utf-8")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What the command needs, and nothing of the person who runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HARNESS),
        "HOME": str(folder.parent),
        "AUTORESEARCH_CACHE": str(folder.parent / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        **more,
    }


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.doctor", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False
    )


def rows(folder: Path, **more: str) -> dict[str, list[Row]]:
    """All rows by check, found in this process."""
    found: dict[str, list[Row]] = {name: [] for name in CHECKS}
    for row in examine(Place(folder, environment(folder, **more)), CHECKS):
        found.setdefault(row.check, []).append(row)
    return found


def states(found: list[Row]) -> set[State]:
    return {row.state for row in found}


def test_a_good_checkout_is_ready_and_is_left_as_it_was(checkout: Path) -> None:
    before = sorted(checkout.parent.rglob("*"))
    done = run(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == doctor.FIRST_LINE
    assert lines[-1] == "Ready: python -m harness.run"
    assert "problem" not in {line[:8].strip() for line in lines}
    assert any(re.match(r"ok +checkout +.*été à la mer", line) for line in lines)
    assert sorted(checkout.parent.rglob("*")) == before
    assert done.stderr == ""


def test_each_row_of_json_says_check_state_finding_and_mend(checkout: Path) -> None:
    done = run(checkout, "--json")
    told = json.loads(done.stdout)
    assert told["ready"] is True
    assert {tuple(row) for row in told["rows"]} == {("state", "check", "found", "mend")}
    assert {row["check"] for row in told["rows"]} >= {"torch", "device", "train.py", "ledger", "keys", "sandbox"}
    assert all(row["mend"] for row in told["rows"] if row["state"] != "ok")


def test_a_key_is_named_and_never_shown(checkout: Path) -> None:
    for arguments in ([], ["--json"]):
        done = run(checkout, *arguments, ANTHROPIC_API_KEY=KEY)
        assert "ANTHROPIC_API_KEY: set, not used unless you name a paid researcher" in done.stdout
        assert "OPENAI_API_KEY: not set" in done.stdout
        for length in range(4, len(KEY)):
            assert KEY[-length:] not in done.stdout + done.stderr
        assert KEY[:8] not in done.stdout + done.stderr


def test_a_secret_that_gets_into_an_error_is_taken_out(checkout: Path) -> None:
    def broken(place: Place) -> Iterator[Row]:
        raise HarnessError(f"refused with {KEY}", f"look at {KEY}")

    place = Place(checkout, environment(checkout, ANTHROPIC_API_KEY=KEY))
    (row,) = examine(place, {"broken": broken})
    assert row == Row(State.PROBLEM, "broken", "refused with [ANTHROPIC_API_KEY]", "look at [ANTHROPIC_API_KEY]")


def test_a_broken_train_py_is_a_row_and_exit_status_1(checkout: Path) -> None:
    (checkout / "train.py").write_text(TRAIN.replace("[16..128 int]", "[128..16 int]"), encoding="utf-8")
    done = run(checkout)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert line.split()[1] == "train.py"
    assert "line 4" in line
    assert done.stdout.splitlines()[-1] == "Not ready: 1 problem to mend first."
    assert "Traceback" not in done.stdout + done.stderr


def test_a_train_py_without_ranges_is_a_warning(checkout: Path) -> None:
    (checkout / "train.py").write_text(TRAIN.replace("[16..128 int]", ""), encoding="utf-8")
    (row,) = rows(checkout)["train.py"]
    assert row.state is State.WARNING
    assert "0 with a range" in row.found


def test_a_missing_train_py_is_a_problem_that_says_how_to_get_it_back(checkout: Path) -> None:
    (checkout / "train.py").unlink()
    (row,) = rows(checkout)["train.py"]
    assert row.state is State.PROBLEM
    assert "git checkout" in row.mend


def test_a_broken_ruler_is_a_problem(checkout: Path) -> None:
    (checkout / "prepare.py").write_text("SCALES = make()\n", encoding="utf-8")
    (row,) = rows(checkout)["prepare.py"]
    assert row.state is State.PROBLEM
    assert "SCALES" in row.found


def test_a_folder_that_is_no_checkout_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    done = run(folder)
    assert done.returncode == 1
    assert re.search(r"problem +git .*none is no git checkout\n +-> Run `git init`", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr


def test_a_machine_without_git_is_a_problem(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(checkout, PATH=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert re.search(r"problem +git +git was not found", done.stdout)


def test_it_works_from_a_folder_inside_the_checkout(checkout: Path) -> None:
    (checkout / "notes").mkdir()
    found = rows(checkout / "notes", GIT_CEILING_DIRECTORIES="")
    assert states(found["train.py"]) == {State.OK}


def test_a_changed_train_py_is_mentioned(checkout: Path) -> None:
    assert "changes" not in rows(checkout)["branch"][0].found
    (checkout / "train.py").write_text(TRAIN + "\n# mine\n", encoding="utf-8")
    (row,) = rows(checkout)["branch"]
    assert row.state is State.OK
    assert row.found.startswith("main; train.py has changes")


def test_standing_on_a_branch_of_the_harness_is_a_warning(checkout: Path) -> None:
    git(checkout, "switch", "-q", "-c", "autoresearch/nov20")
    (row,) = rows(checkout)["branch"]
    assert row.state is State.WARNING
    assert "git switch" in row.mend


def test_a_ledger_is_counted(checkout: Path) -> None:
    assert "none yet" in rows(checkout)["ledger"][0].found
    (checkout / "results").mkdir()
    Ledger.open(checkout / "results" / "ledger.db").close()
    assert rows(checkout)["ledger"] == [Row(State.OK, "ledger", "0 experiments in 0 series")]


def test_a_file_that_is_no_ledger_is_a_problem(checkout: Path) -> None:
    (checkout / "results").mkdir()
    (checkout / "results" / "ledger.db").write_text("not SQLite, " * 100, encoding="utf-8")
    assert states(rows(checkout)["ledger"]) == {State.PROBLEM}


def test_a_corpus_that_is_not_prepared_is_no_problem(checkout: Path) -> None:
    (row,) = rows(checkout)["corpus"]
    assert row.state is State.WARNING
    assert "prepare.py --corpus python" in row.mend


def test_on_a_gpu_the_corpus_row_foretells_what_a_run_takes(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    gpu = machine.Device("cuda", "H100", 1, 80_000, (0,))
    monkeypatch.setattr(machine, "pick_device", lambda *_, **__: gpu)
    (row,) = rows(checkout)["corpus"]
    assert row.state is State.WARNING
    assert "a run fetches it, or takes python where it cannot be reached" in row.found
    assert "python prepare.py --corpus climbmix" in row.mend
    assert "--mirror" in row.mend


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    wanted = ["rich>=14", "torch==1.0", "no-such-package>=2", "openai>=9999"]
    monkeypatch.setattr(checks, "_required", lambda: wanted)
    found = {row.found.split()[0]: row.state for row in rows(checkout)["packages"]}
    assert found == {
        "torch": State.WARNING,
        "no-such-package": State.PROBLEM,
        "openai": State.WARNING,
        "1": State.OK,
    }


def test_one_check_that_breaks_leaves_the_others_standing(checkout: Path) -> None:
    def half(place: Place) -> Iterator[Row]:
        yield checks.ok("half", "first")
        raise RuntimeError("lost \x1b[2J")

    found = list(examine(Place(checkout, {}), {"half": half, "python": CHECKS["python"]}))
    assert [row.state for row in found] == [State.OK, State.PROBLEM, State.OK]
    assert found[1].found == "RuntimeError: lost \\x1b[2J"


def test_it_is_quick_since_it_imports_no_torch(checkout: Path) -> None:
    code = "import sys; from harness import checks; from pathlib import Path; import os\n"
    code += "list(checks.examine(checks.Place(Path.cwd(), os.environ), checks.CHECKS))\n"
    code += "print(sorted({'torch', 'pandas', 'optuna', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment(checkout), capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_deep_computes_with_torch(checkout: Path) -> None:
    done = run(checkout, "--deep")
    assert done.returncode == 0
    assert re.search(r"ok +compute +torch \S+ computes on cpu", done.stdout)


def test_a_machine_without_a_compiler_is_a_warning_that_says_what_to_install(checkout: Path) -> None:
    row = checks.compilation("cpu", environment(checkout, CXX="no-such-compiler"))
    assert row.state is State.WARNING
    assert "no-such-compiler" in row.found
    assert "build-essential python3-dev" in row.mend


@pytest.mark.skipif(not machine.installed_gpus(), reason="needs a GPU")
def test_a_gpu_compiles_and_goes_back(checkout: Path) -> None:
    tried = proof.compiles("cuda", os.environ)
    assert tried.worked, tried.said


def test_a_try_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    monkeypatch.setattr(proof, "SECONDS", 0.2)
    monkeypatch.setattr(proof, "COMPUTE", "import signal; signal.pause()")
    assert proof.computes("cpu", environment(checkout)) == proof.Proof(False, "no end in 0.2 s")


def test_help_says_what_the_command_does(checkout: Path) -> None:
    done = run(checkout, "--help", COLUMNS="200")
    assert done.returncode == 0
    assert doctor.FIRST_LINE in done.stdout
    assert "--json" in done.stdout


def test_long_findings_are_wrapped_under_their_own_column() -> None:
    row = Row(State.WARNING, "disk", "many words " * 12, "do this " * 12)
    lines = shown(row, 60, colour=False).splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 21) for line in lines[1:])
    assert sum("-> do this" in line for line in lines) == 1


def test_too_little_memory_names_the_number_of_workers_that_fit(
    monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setattr(machine, "memory_mb", lambda: 1_600)
    monkeypatch.setattr(machine, "cores", lambda: [0, 1])
    (row,) = rows(checkout)["memory"]
    assert row.state is State.WARNING
    assert "--workers 1" in row.mend


def test_a_machine_without_bubblewrap_is_told_how_to_get_it(checkout: Path, tmp_path: Path) -> None:
    (row,) = rows(checkout, PATH=str(tmp_path))["sandbox"]
    assert row.state in (State.WARNING, State.PROBLEM)
    assert "bubblewrap is not installed" in row.found
    assert "apt install bubblewrap" in row.mend
