"""The leaderboard: what is ranked against what, and in which form it is read."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Answer

from harness import board
from harness.leaderboard import app, gather, show
from harness.ledger import Ledger
from harness.types import Arena, Outcome, Result, Verdict

ARENA = Arena("python-1f3a", "cpu", "cpu:30", 1, "r0", "EPYC 7B13", "2.13.0", 1)
EVIL = "[red]x[/red] [link=http://evil]y[/link] \x1b[2J\x1b]0;t\x07\u202e\ttab\nline"


@dataclass
class Night:
    """A ledger in a checkout, and a short way to fill it."""

    root: Path
    ledger: Ledger

    def add(
        self,
        *scores: float | None,
        parent: int | None = 0,
        verdict: Verdict | None = Verdict.DISCARD,
        title: str = "try",
        reason: str = "as it fell",
        tag: str = "nov20",
        arena: Arena = ARENA,
        sandbox: int = 1,
        gap: float | None = None,
    ) -> int:
        """An experiment with one trial a score; None is a crash."""
        id = self.ledger.open_experiment(tag, arena.key, parent, title, "why", "width", "search").id
        self.ledger.add_attempt(tag, id, f"{id:040x}", f"X = {id}\n", str(id))
        for index, score in enumerate(scores):
            self.ledger.start_trial(tag, id, 1, index, index + 1)
            outcome = Outcome.CRASH if score is None else Outcome.OK
            result = Result(
                outcome, "" if score else "ValueError: no", score, 30.0, 36.0, 5.0, 1000, 8, 900.0, 1_200_000
            )
            result = replace(result, sandbox=sandbox, gap=gap)
            self.ledger.finish_trial(tag, id, 1, index, result)
        if verdict:
            self.ledger.judge(tag, id, verdict, reason, 0.01 if verdict is Verdict.KEEP and id else None)
        return id


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """Five experiments of one tag: baseline, kept, discarded, failed, and one that runs."""
    root = tmp_path / "nuit d'été"
    (root / ".git").mkdir(parents=True)
    monkeypatch.chdir(root)
    with Ledger.open(root / "results" / "ledger.db") as ledger:
        ledger.start_series("nov20", ARENA, {}, "base")
        night = Night(root, ledger)
        night.add(1.80, 1.82, parent=None, verdict=Verdict.KEEP, title="Baseline")
        night.add(1.75, 1.77, verdict=Verdict.KEEP, title="wider")
        night.add(1.90, title="deeper")
        night.add(None, verdict=Verdict.FAILED, title="broken", reason="crash: ValueError: no")
        night.add(verdict=None, title="now")
        yield night


def run(*arguments: str) -> Answer:
    return CliRunner().invoke(app, list(arguments))


def objects(*arguments: str) -> list[dict[str, object]]:
    """Stdout as JSON, and nothing but JSON."""
    answer = run("--json", *arguments)
    assert answer.exit_code == 0
    found: list[dict[str, object]] = json.loads(answer.stdout)
    return found


def test_the_best_is_first_and_what_has_no_score_last(night: Night) -> None:
    assert [(row["rank"], row["id"]) for row in objects()] == [(1, 1), (2, 0), (3, 2), (None, 3), (None, 4)]


def test_json_has_every_figure_of_an_experiment(night: Night) -> None:
    row = objects()[0]
    assert row == {
        "rank": 1,
        "id": 1,
        "tag": "nov20",
        "arena": ARENA.key,
        "verdict": "keep",
        "val_bpb": pytest.approx(1.76),
        "stderr": pytest.approx(0.01),
        "trials": 2,
        "gain": 0.01,
        "total_gain": pytest.approx(0.05),
        "commit": f"{1:040x}",
        "parent": 0,
        "title": "wider",
        "hypothesis": "why",
        "category": "width",
        "researcher": "search",
        "reason": "as it fell",
        "training_seconds": 30.0,
        "total_seconds": 36.0,
        "tokens": 1000.0,
        "params": 1_200_000,
        "peak_memory_mb": 900.0,
        "sandbox": 1,
        "gap": None,
    }


def test_json_has_the_lowest_level_and_the_largest_gap_of_the_trials(night: Night) -> None:
    id = night.add(1.70, sandbox=3, gap=0.0002)
    for index, (level, gap) in enumerate([(2, -0.0005), (3, None)], 1):
        night.ledger.start_trial("nov20", id, 1, index, 9)
        result = Result(Outcome.OK, val_bpb=1.70, sandbox=level, gap=gap)
        night.ledger.finish_trial("nov20", id, 1, index, result)
    assert [(row["sandbox"], row["gap"]) for row in objects() if row["id"] == id] == [(2, -0.0005)]


def test_a_lost_trial_says_nothing_of_the_level(night: Night) -> None:
    id = night.add(1.70, sandbox=3)
    night.ledger.start_trial("nov20", id, 1, 1, 2)
    night.ledger.abandon("nov20")
    assert [row["sandbox"] for row in objects() if row["id"] == id] == [3]


def test_the_table_names_the_level_where_a_sandbox_was_not_full(night: Night) -> None:
    night.add(1.70, sandbox=3, title="walled")
    shown = run().stdout
    header, row = (next(line for line in shown.splitlines() if word in line) for word in ("verdict", "walled"))
    assert row[header.index("level") :][:5] == "    3"
    assert "level: of the sandbox" in shown


def test_the_table_is_silent_on_the_level_where_all_sandboxes_were_full(night: Night) -> None:
    night.ledger.start_series("nov21", ARENA, {}, "base")
    night.add(1.70, parent=None, tag="nov21", sandbox=3)
    assert "level" not in run("--tag", "nov21").stdout


def test_the_gain_in_all_is_over_seeds_that_both_have(night: Night) -> None:
    assert objects()[2]["total_gain"] == pytest.approx(1.80 - 1.90)


def test_the_table_says_what_it_shows_and_in_which_arena(night: Night) -> None:
    lines = run().stdout.splitlines()
    assert lines[0] == "Leaderboard of tag nov20: experiments by validation bits per byte, lower is better."
    assert lines[2].startswith("EPYC 7B13 · scale cpu · budget cpu:30 · corpus python-1f3a · torch 2.13.0")
    assert lines[3] == (
        "5 experiments, 2 kept, 1 failed, 0.1 hours of trials; "
        "best kept: #1 with 1.7600, +0.0500 over the baseline's 1.8100"
    )


def test_a_row_shows_score_error_seeds_and_verdict(night: Night) -> None:
    lines = run().stdout.splitlines()
    best = next(line for line in lines if "wider" in line)
    words = [
        "1",
        "1",
        "●",
        "keep",
        "1.7600",
        "±",
        "0.0100",
        "(2)",
        "+0.0100",
        "+0.0500",
        "1.20M",
        "900",
        "MB",
        "36",
        "s",
    ]
    assert best.split() == [*words, "1", "search", "wider"]
    assert any(line.endswith("broken: crash: ValueError: no") for line in lines)
    assert any("open" in line and line.endswith("now") for line in lines)


def test_best_is_the_kept_one_and_not_a_lucky_discarded_one(night: Night) -> None:
    night.add(1.60, title="lucky")
    assert objects()[0]["title"] == "lucky"
    assert "best kept: #1 with 1.7600" in run().stdout


def test_best_is_the_last_one_kept_though_an_older_one_scored_lower(night: Night) -> None:
    last = night.add(1.70, 1.80, parent=night.add(1.71, verdict=Verdict.KEEP, parent=1), verdict=Verdict.KEEP)
    assert f"best kept: #{last} with 1.7500" in run().stdout


def test_where_tags_meet_best_is_the_lowest_of_their_last_ones_over_its_own_baseline(night: Night) -> None:
    night.ledger.start_series("nov21", ARENA, {}, "base")
    night.add(1.79, 1.79, parent=None, verdict=Verdict.KEEP, tag="nov21")
    night.add(1.77, verdict=Verdict.KEEP, tag="nov21")
    night.add(1.78, parent=1, verdict=Verdict.KEEP, tag="nov21")
    assert "best kept: #1 with 1.7600, +0.0500 over the baseline's 1.8100" in run("--all").stdout


def test_best_is_the_end_of_the_chain_though_an_older_number_was_judged_later(night: Night) -> None:
    late = night.add(1.74, 1.74, verdict=None)
    middle = night.add(1.73, 1.73, parent=1, verdict=Verdict.KEEP)
    last = night.add(1.72, 1.72, parent=middle, verdict=Verdict.KEEP)
    night.ledger.judge("nov20", late, Verdict.DISCARD, "late")
    assert f"best kept: #{last} with 1.7200" in run().stdout


def test_scores_are_ranked_inside_their_arena_alone(night: Night) -> None:
    other = replace(ARENA, budget="cpu:60")
    night.ledger.start_series("nov21", other, {}, "base")
    night.add(1.10, parent=None, verdict=Verdict.KEEP, tag="nov21", arena=other)
    rows = objects("--all")
    assert [(row["tag"], row["rank"]) for row in rows if row["rank"] == 1] == [("nov20", 1), ("nov21", 1)]
    assert "budget cpu:60" in run("--all").stdout


def test_tags_of_one_arena_are_ranked_together_each_over_its_own_baseline(night: Night) -> None:
    night.ledger.start_series("nov21", ARENA, {}, "base")
    night.add(1.70, parent=None, verdict=Verdict.KEEP, tag="nov21")
    night.add(1.65, verdict=Verdict.DISCARD, tag="nov21")
    rows = objects("--all")
    assert [(row["tag"], row["id"]) for row in rows[:3]] == [("nov21", 1), ("nov21", 0), ("nov20", 1)]
    assert rows[0]["total_gain"] == pytest.approx(0.05)
    assert "nov21 1" in run("--all").stdout


def test_the_last_tag_is_shown_unless_another_is_named(night: Night) -> None:
    night.ledger.start_series("nov21", ARENA, {}, "base")
    night.add(1.70, parent=None, tag="nov21")
    assert {row["tag"] for row in objects()} == {"nov21"}
    assert {row["tag"] for row in objects("--tag", "nov20")} == {"nov20"}


def test_the_tab_separated_table_has_the_fields_of_json(night: Night) -> None:
    night.add(1.7, title=EVIL + '"')
    lines = run("--tsv").stdout.splitlines()
    assert lines[0].split("\t") == list(objects()[0])
    assert {line.count("\t") for line in lines} == {lines[0].count("\t")}
    assert len(lines) == 7


def test_a_hostile_title_is_shown_and_not_obeyed(night: Night) -> None:
    night.add(1.70, title=EVIL, reason=EVIL)
    night.add(None, title=EVIL, reason=EVIL, verdict=Verdict.FAILED)
    plain = run().stdout
    drawn = on_terminal(width=400)
    for shown in (plain, drawn):
        assert shown.count(r"[red]x[/red] [link=http://evil]y[/link] \x1b[2J\x1b]0;t\x07\u202e tab line") == 3
        assert "\u202e" not in shown
        assert "\x07" not in shown
    assert "\x1b" not in plain
    assert "\x1b[2J" not in drawn
    assert objects()[0]["title"] == EVIL


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller that tells rich what its terminal is."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def on_terminal(width: int) -> str:
    """What a terminal of this width is sent."""
    out = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        board.draw(gather(Path.cwd()), out)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_of_any_width_shows_rank_score_and_title(night: Night, width: int) -> None:
    for line in on_terminal(width).splitlines():
        if "wider" in line:
            assert "1.7600 ± 0.0100 (2)" in line
            return
    pytest.fail("no row of it")


@pytest.mark.parametrize("width", [60, 80, 100, 112, 150])
def test_a_long_title_takes_no_room_from_number_and_score(night: Night, width: int) -> None:
    number = night.add(1.70, 1.72, title="the title of an experiment that changes a great many things " * 3)
    row = next(line for line in on_terminal(width).splitlines() if "the title" in line)
    assert re.search(rf"\b{number}\b", row.partition("1.71")[0])
    assert "1.7100 ± 0.0100 (2)" in row


def test_a_terminal_is_shown_the_first_ones_the_kept_ones_and_how_many_are_left(night: Night) -> None:
    for _ in range(board.ON_SCREEN + 30):
        night.add(1.70)
    last = night.add(1.79, 1.79, verdict=Verdict.KEEP, title="far down")
    shown = on_terminal(150)
    assert "far down" in shown
    assert " more are not shown" in shown
    assert str(last) in shown
    assert run().stdout.count("\n") > board.ON_SCREEN + 30


def test_a_pipe_gets_whole_lines_whatever_the_width_of_the_terminal(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    night.add(1.70, title="x" * 90)
    assert "x" * 90 in run().stdout


def test_a_title_in_wide_characters_does_not_bend_the_columns(night: Night) -> None:
    night.add(1.70, title="木木木")
    night.ledger.start_series("木木", ARENA, {}, "base")
    night.add(1.70, parent=None, tag="木木", title="other")
    lines = run("--all").stdout.splitlines()
    from rich.cells import cell_len

    places = {cell_len(line[: line.index("  search ")]) for line in lines if "  search " in line}
    assert len(places) == 1


def test_it_is_read_from_a_subfolder(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    (night.root / "docs" / "more").mkdir(parents=True)
    monkeypatch.chdir(night.root / "docs" / "more")
    assert len(objects()) == 5


def test_a_ledger_above_the_checkout_is_not_taken_for_ours(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    (night.root / "inner" / ".git").mkdir(parents=True)
    monkeypatch.chdir(night.root / "inner")
    assert run().exit_code == 1


def test_a_missing_ledger_is_an_error_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    answer = run("--json")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert "python -m harness.run" in answer.stderr


def test_an_empty_ledger_or_series_is_an_error_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger.open(tmp_path / "results" / "ledger.db") as ledger:
        answer = run()
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert "python -m harness.run" in answer.stderr
        ledger.start_series("nov20", ARENA, {}, "base")
        answer = run()
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert "no experiment of tag nov20" in answer.stderr


def test_a_tag_that_is_unknown_is_an_error_that_lists_the_known_ones(night: Night) -> None:
    answer = run("--tag", "never")
    assert answer.exit_code == 1
    assert "It has: nov20" in answer.stderr


@pytest.mark.parametrize("options", [["--json", "--tsv"], ["--all", "--tag", "nov20"]])
def test_options_that_exclude_each_other_are_refused(night: Night, options: list[str]) -> None:
    assert run(*options).exit_code == 1


def test_a_run_shows_its_tag_at_the_end(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    show(night.root, "nov20")
    assert capsys.readouterr().out.startswith("Leaderboard of tag nov20")


def command(*arguments: str, encoding: str = "utf-8") -> subprocess.Popen[bytes]:
    """The command as a person starts it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONIOENCODING": encoding}
    line = [sys.executable, "-m", "harness.leaderboard", *arguments]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_pipe_that_closes_early_is_no_error(night: Night) -> None:
    for _ in range(3):
        night.add(1.70, title="x" * 100, reason="y" * 30_000)
    with command("--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_a_terminal_that_knows_ascii_alone_gets_escapes(night: Night) -> None:
    with command(encoding="ascii") as process:
        output, errors = process.communicate()
    assert errors == b""
    assert b"wider" in output
