"""Whole nights as a person runs them: the real command in a real checkout, with real trainings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import git

from harness.corpora import Corpus
from harness.ledger import Ledger
from harness.types import Outcome, Verdict

Harness = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environ(cache: Path) -> dict[str, str]:
    return {**os.environ, "AUTORESEARCH_CACHE": str(cache), "OPENAI_API_KEY": "sk-planted-and-never-used"}


@pytest.fixture
def harness(checkout: Path, corpus: Corpus, text_corpus: Path, environ: dict[str, str]) -> Harness:
    """Runs a command of the harness in the checkout, to its end."""

    def go(command: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        if command == "run":
            arguments = ("--corpus", str(text_corpus), "--device", "cpu", *arguments)
        argv = [sys.executable, "-m", f"harness.{command}", *arguments]
        options = {"cwd": checkout, "env": environ, "timeout": 200, **options}
        return subprocess.run(argv, capture_output=True, text=True, **options)  # type: ignore[call-overload]

    return go


@pytest.fixture
def start(checkout: Path, corpus: Corpus, text_corpus: Path, environ: dict[str, str]):
    """Starts a run that is to be interrupted."""
    started: list[subprocess.Popen[str]] = []

    def go(*arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "harness.run", "--corpus", str(text_corpus), "--device", "cpu", *arguments]
        process = subprocess.Popen(argv, cwd=checkout, env=environ, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def until(process: subprocess.Popen[str], words: str) -> None:
    """Read what a run prints until a line has these words."""
    assert process.stdout
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}")


def trial_processes(cache: Path) -> list[str]:
    """Command lines of all that works with this cache: trainers, feeders, servers, scorers, supervisors."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(cache).encode() in text:
            found.append((process / "cmdline").read_text())
    return found


def test_a_night_from_a_fresh_checkout_to_a_leaderboard(harness: Harness, checkout: Path) -> None:
    done = harness("run", "--tag", "first", "--experiments", "2", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("tag", "device", "scale", "corpus", "researcher", "budget", "Leaderboard"):
        assert word in done.stdout
    with Ledger.open(checkout / "results/ledger.db", readonly=True) as ledger:
        experiments = ledger.experiments("first")
    assert [e.id for e in experiments] == [0, 1, 2]
    assert all(e.verdict for e in experiments)
    assert experiments[0].val_bpb is not None
    assert git(checkout, "branch", "--show-current").strip() == "main"
    assert git(checkout, "status", "--porcelain") == ""
    assert "sk-planted" not in done.stdout + done.stderr
    ranked = json.loads(harness("leaderboard", "--json").stdout)
    assert {row["id"] for row in ranked} == {0, 1, 2}
    shown = harness("show", "1").stdout
    assert experiments[1].title in shown.replace("\n", " ")
    again = harness("run", "--experiments", "1")
    assert again.returncode == 0, again.stderr
    with Ledger.open(checkout / "results/ledger.db", readonly=True) as ledger:
        more = ledger.experiments(ledger.tags()[-1])
    assert len(more[0].trials) == 3


def test_a_killed_night_goes_on_where_it_was(harness: Harness, start, checkout: Path, cache: Path) -> None:
    process = start("--tag", "killed", "--experiments", "2", "--budget", "cpu:2")
    until(process, "opened 1")
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while left := trial_processes(cache):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    with Ledger.open(checkout / "results/ledger.db", readonly=True) as ledger:
        before = {(t.index, t.started) for t in ledger.experiments("killed")[0].trials if t.result}
    assert before
    done = harness("run", "--experiments", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    with Ledger.open(checkout / "results/ledger.db", readonly=True) as ledger:
        experiments = ledger.experiments("killed")
    assert before <= {(t.index, t.started) for t in experiments[0].trials}
    assert all(e.verdict for e in experiments)
    assert git(checkout, "rev-parse", "autoresearch/killed").strip() in {e.commit for e in experiments}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_night_in_order(start, checkout: Path, cache: Path, number: signal.Signals) -> None:
    process = start("--tag", "stopped", "--budget", "cpu:60", "--workers", "1")
    until(process, "opened 0")
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Leaderboard" in out
    assert not trial_processes(cache)
    with Ledger.open(checkout / "results/ledger.db", readonly=True) as ledger:
        (baseline,) = ledger.experiments("stopped")
        assert ledger.last_unfinished() == "stopped"
    assert [t.result.outcome for t in baseline.trials if t.result] == [Outcome.LOST]
    assert baseline.verdict is not Verdict.KEEP


def test_a_second_harness_on_the_same_tag_is_told_who_holds_it(harness: Harness, start) -> None:
    process = start("--tag", "busy", "--budget", "cpu:60")
    until(process, "opened 0")
    done = harness("run", "--tag", "busy")
    assert done.returncode == 1
    assert str(process.pid) in done.stderr


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--researcher", "serch"], ["serch", "search"]),
        (["--budget", "cpu:0"], ["cpu:0", "cpu:SECONDS"]),
        (["--budget", "forever"], ["forever"]),
        (["--tag", "a..b"], ["a..b", "--tag"]),
        (["--scale", "tpu"], ["tpu", "cpu"]),
        (["--device", "cuda"], ["cpu"]),
        (["--workers", "9999"], ["9999", "--workers"]),
        (["--experiments", "-1"], ["-1"]),
        (["--corpus", "/no/such/folder"], ["/no/such/folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_option_that_cannot_work_is_named_with_its_mend(
    harness: Harness, arguments: list[str], words: list[str]
) -> None:
    refused(harness("run", *arguments), *words)


def test_a_folder_that_is_no_checkout_is_refused(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    refused(harness("run", cwd=tmp_path / "plain"), "git init")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("def main():", "def main(:", "line"),
        ("def build_model", "def make_model", "build_model"),
        ("[0.001..1.0 log]", "[1.0..0.001 log]", "LR"),
    ],
    ids=["does not parse", "no build_model", "malformed range"],
)
def test_a_train_py_that_breaks_its_contract_is_refused_before_any_work(
    harness: Harness, checkout: Path, old: str, new: str, word: str
) -> None:
    source = (checkout / "train.py").read_text()
    (checkout / "train.py").write_text(source.replace(old, new))
    done = harness("run", "--tag", "bad")
    refused(done, "train.py", word)
    assert "repar" not in done.stdout  # neither preparing nor prepared: it is told before that
    assert "autoresearch/bad" not in git(checkout, "branch", "--list", "autoresearch/*")


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00" * 200_000], ids=["empty", "binary"])
def test_a_corpus_without_text_is_refused(harness: Harness, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    refused(harness("run", "--corpus", str(tmp_path / "bad.txt")), "bad.txt")


def test_a_tag_of_another_arena_is_refused_with_what_differs(harness: Harness) -> None:
    assert harness("run", "--tag", "arena", "--experiments", "0").returncode == 0
    refused(
        harness("run", "--tag", "arena", "--budget", "steps:7", "--experiments", "0"),
        "budget: steps:7, steps:6",
        "--tag",
    )


def test_a_tag_beside_one_that_is_its_folder_is_refused(harness: Harness, checkout: Path) -> None:
    git(checkout, "branch", "autoresearch/deep/er")
    refused(harness("run", "--tag", "deep"), "deep/er")


def test_a_dirty_and_detached_checkout_is_fine_and_stays_as_it_is(harness: Harness, checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    (checkout / "train.py").write_text((checkout / "train.py").read_text() + "\n# mine\n")
    done = harness("run", "--tag", "dirty", "--experiments", "0")
    assert done.returncode == 0, done.stderr
    assert "# mine" in git(checkout, "show", "autoresearch/dirty:train.py")
    assert git(checkout, "status", "--porcelain").strip() == "M train.py"
