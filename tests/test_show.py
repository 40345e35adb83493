"""One experiment with all its evidence: real git for the change, real files for the log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.git import Repository
from harness.ledger import Ledger
from harness.show import app
from harness.types import Arena, Outcome, Result, Verdict

ARENA = Arena("python-1f3a", "cpu", "cpu:30", 1, "r0", "EPYC", "2.13.0", 1)
EVIL = "[red]x[/red] \x1b[2J\x1b]0;t\x07\u202e"
SHOWN = r"[red]x[/red] \x1b[2J\x1b]0;t\x07\u202e"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A checkout with a baseline, a kept experiment, one that crashed, and one without a text."""
    root = tmp_path / "nuit d'été"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet", root], check=True)
    monkeypatch.chdir(root)
    repository = Repository.open(root)
    base = repository.baseline("nov20", "WIDTH = 64\nDEPTH = 2\n", "VOCAB = 2048\n")
    wider = repository.commit("nov20", 1, 1, base, "WIDTH = 96\nDEPTH = 2\n", "wider")
    evil = repository.commit("nov20", 2, 1, wider, f"WIDTH = 96\n# {EVIL}\nDEPTH = 2\n", "evil")
    with Ledger.open(root / "results" / "ledger.db") as ledger:
        ledger.start_series("nov20", ARENA, {}, base)
        judged(ledger, None, "Baseline", base, Result(Outcome.OK, "", 1.80, 30.0, 36.0), Verdict.KEEP)
        ok = Result(Outcome.OK, "", 1.75, 30.0, 36.0, 5.0, 1_500_000, 800, 1536.0, sandbox=3, gap=-0.0003)
        judged(ledger, 0, "wider", wider, ok, Verdict.KEEP)
        judged(ledger, 1, EVIL, evil, Result(Outcome.CRASH, f"ValueError: {EVIL}"), Verdict.FAILED)
        ledger.open_experiment("nov20", ARENA.key, 1, "nothing", "", "", "search")
        ledger.judge("nov20", 3, Verdict.NO_PROPOSAL, "the model said no")
        yield ledger


def judged(ledger: Ledger, parent: int | None, title: str, commit: str, result: Result, verdict: Verdict) -> None:
    """An experiment with one trial, and the log of it."""
    id = ledger.open_experiment("nov20", ARENA.key, parent, title, f"why {title}", "width", "search").id
    ledger.add_attempt("nov20", id, commit, f"X = {id}\n", str(id))
    ledger.start_trial("nov20", id, 1, 0, 17)
    ledger.finish_trial("nov20", id, 1, 0, result)
    ledger.judge("nov20", id, verdict, f"reason {title}", None if parent is None else 0.05)
    log = log_of(ledger, id)
    log.parent.mkdir(parents=True)
    log.write_text("\n".join(f"step {i}" for i in range(500)) + f"\n{title}\n")


def log_of(ledger: Ledger, id: int) -> Path:
    return ledger.path.parent / "nov20" / f"{id:04d}" / "a1-s0" / "output.log"


def shown(*arguments: str) -> str:
    """Stdout of the command, as in a pipe."""
    answer = CliRunner().invoke(app, list(arguments))
    assert answer.exit_code == 0, answer.stderr
    return answer.stdout


def test_the_first_line_says_what_is_shown(ledger: Ledger) -> None:
    assert shown("1").splitlines()[0] == "Experiment 1 of tag nov20: its idea and its evidence."


def test_idea_verdict_score_and_lineage_are_shown(ledger: Ledger) -> None:
    output = shown("1")
    assert "\nwider\nwhy wider\n" in output
    assert "verdict     keep, +0.0500 over its parent: reason wider\n" in output
    assert "score       1.7500\n" in output
    assert "lineage     #1 (1.7500) <- #0 (1.8000)\n" in output


def test_each_trial_is_shown_with_its_figures(ledger: Ledger) -> None:
    row = next(line for line in shown("1").splitlines() if line.startswith("1  "))
    assert row.split() == ["1", "17", "ok", "1.750000", "800", "50,000", "36", "s", "1.5", "GB", "3", "-0.000300"]


def test_the_change_is_shown_against_the_parent(ledger: Ledger) -> None:
    assert "-WIDTH = 64\n+WIDTH = 96\n DEPTH = 2\n" in shown("1")
    assert "-WIDTH" not in shown("2")
    assert "it is the baseline" in shown("0")


def test_the_end_of_the_log_is_shown(ledger: Ledger) -> None:
    output = shown("1")
    assert "── End of results/nov20/0001/a1-s0/output.log\n(its last 40 lines)\n" in output
    assert "step 499\nwider\n" in output
    assert "step 460\n" not in output


def test_the_paths_of_the_evidence_are_shown(ledger: Ledger) -> None:
    output = shown("1")
    assert "git show refs/autoresearch/nov20/0001 " in output
    assert "\nresults/nov20/0001/a1-s0/\n" in output


def test_a_repair_is_shown_under_the_ref_that_git_has_it_by(ledger: Ledger) -> None:
    id = ledger.open_experiment("nov20", ARENA.key, 1, "repaired", "", "", "search").id
    repository, parent = Repository.open(Path.cwd()), ledger.experiment("nov20", 1).commit or ""
    for attempt in (1, 2):
        commit = repository.commit("nov20", id, attempt, parent, f"WIDTH = {attempt}\n", "repaired")
        ledger.add_attempt("nov20", id, commit, f"WIDTH = {attempt}\n", f"h{attempt}")
    refs = [line.split() for line in shown(str(id)).splitlines() if line.startswith("git show")]
    found = [subprocess.run(["git", "rev-parse", ref], capture_output=True, text=True).stdout for *_, ref, _ in refs]
    assert [commit[:12] for commit in found] == [short for *_, short in refs]
    assert len(set(found)) == 2


def test_nothing_untrusted_is_obeyed(ledger: Ledger) -> None:
    output = shown("2")
    assert output.count(SHOWN) >= 6  # title, hypothesis, reason, the trial's reason, the change, the log
    assert not [c for c in output if not c.isprintable() and c != "\n"]


def test_a_long_line_is_not_cut_in_a_pipe(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    log_of(ledger, 1).write_text("x" * 500 + "\n")
    assert "x" * 500 in shown("1")


def test_a_log_that_is_a_link_is_not_followed_and_a_fifo_does_not_block(ledger: Ledger, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    log = log_of(ledger, 1)
    log.unlink()
    log.symlink_to(secret)
    assert "the secret" not in shown("1")
    log.unlink()
    os.mkfifo(log)
    assert "Not available" in shown("1")
    log.unlink()
    assert "Not available: No such file" in shown("1")


def test_a_huge_log_is_shown_by_its_end_alone(ledger: Ledger) -> None:
    with log_of(ledger, 1).open("wb") as file:
        file.truncate(10_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    output = shown("1")
    assert "\nthe end\n" in output
    assert len(output) < 100_000


def test_an_experiment_that_runs_or_never_had_a_text_is_shown(ledger: Ledger) -> None:
    assert "verdict     no proposal: the model said no" in shown("3")
    assert "no train.py of its own" in shown("3")
    id = ledger.open_experiment("nov20", ARENA.key, 1, "now", "", "", "search").id
    ledger.add_attempt("nov20", id, ledger.experiment("nov20", 1).commit or "", "X", "h")
    ledger.start_trial("nov20", id, 1, 0, 17)
    output = shown(str(id))
    assert "verdict     open\n" in output
    assert "None: the text is that of its parent." in output
    assert "is not there" in output


def test_without_the_git_objects_all_else_is_still_shown(ledger: Ledger) -> None:
    id = ledger.open_experiment("nov20", ARENA.key, 1, "lost", "", "", "search").id
    ledger.add_attempt("nov20", id, "f" * 40, "X", "h")
    output = shown(str(id))
    assert "Not available: git diff-tree failed" in output
    assert "── Evidence" in output


def test_a_number_that_is_unknown_is_an_error_with_a_mend(ledger: Ledger) -> None:
    answer = CliRunner().invoke(app, ["99"])
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert "no experiment 99 in nov20" in answer.stderr
    assert "harness.leaderboard" in answer.stderr


def test_it_is_read_from_a_subfolder(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.cwd() / "docs").mkdir()
    monkeypatch.chdir(Path.cwd() / "docs")
    assert "+WIDTH = 96" in shown("1", "--tag", "nov20")
