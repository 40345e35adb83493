"""results.tsv: five columns that any reader understands."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from harness import tsv
from harness.errors import LedgerError
from harness.types import Attempt, Experiment, Outcome, Result, Trial, Verdict

COMMIT = "0123456789abcdef"
OK = Result(Outcome.OK, val_bpb=1.75, peak_memory_mb=1536.0)


def experiment(verdict: Verdict | None, *results: Result, title: str = "wider") -> Experiment:
    """One with an attempt, and a trial for each result."""
    trials = tuple(Trial(1, 1, i, i + 1, 0.0, result) for i, result in enumerate(results))
    whole = Experiment("nov20", 1, "arena", 0, title, "", "", "search", 0.0, verdict=verdict, trials=trials)
    return replace(whole, attempts=(Attempt(1, COMMIT, "h"),))


def written(path: Path, *experiments: Experiment) -> list[list[str]]:
    tsv.write(path, experiments)
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_commit_score_memory_status_and_title(tmp_path: Path) -> None:
    rows = written(tmp_path / "results.tsv", experiment(Verdict.KEEP, OK, replace(OK, val_bpb=1.74)))
    assert rows[0] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert rows[1] == ["0123456", "1.745000", "1.5", "keep", "wider"]


def test_no_score_is_an_empty_field_and_never_zero(tmp_path: Path) -> None:
    crash = experiment(Verdict.FAILED, Result(Outcome.CRASH, "ValueError"))
    assert written(tmp_path / "results.tsv", crash)[1] == ["0123456", "", "", "crash", "wider"]


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(Verdict.KEEP, "keep"), (Verdict.DISCARD, "discard"), (Verdict.DUPLICATE, "discard"), (Verdict.FAILED, "crash")],
)
def test_every_verdict_has_its_status(tmp_path: Path, verdict: Verdict, status: str) -> None:
    assert written(tmp_path / "results.tsv", experiment(verdict))[1][3] == status


def test_what_runs_or_was_no_proposal_has_no_line(tmp_path: Path) -> None:
    assert len(written(tmp_path / "results.tsv", experiment(None), experiment(Verdict.NO_PROPOSAL))) == 1


@pytest.mark.parametrize("title", ["a\tb\nc\rd", '"open', "\x1b[31m\0", "\ud800", "x" * 10_000, "", "'; DROP"])
def test_no_title_breaks_the_table(tmp_path: Path, title: str) -> None:
    path = tmp_path / "results.tsv"
    tsv.write(path, [experiment(Verdict.KEEP, OK, title=title), experiment(Verdict.KEEP, OK, title="last")])
    frame = pandas.read_csv(path, sep="\t")
    assert list(frame["description"])[-1] == "last"
    with path.open(encoding="utf-8", newline="") as file:
        assert [len(row) for row in csv.reader(file, delimiter="\t")] == [5, 5, 5]
    assert path.read_text(encoding="utf-8").replace("\n", "").replace("\t", "").isprintable()


def test_it_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "results.tsv"
    tsv.write(path, [experiment(Verdict.KEEP, OK)] * 3)
    with path.open(encoding="utf-8") as reader:
        tsv.write(path, [])
        assert len(reader.readlines()) == 4
    assert path.read_text(encoding="utf-8") == tsv.HEADER + "\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["results.tsv"]


def test_a_place_that_cannot_be_written_is_an_error_with_a_mend(tmp_path: Path) -> None:
    (tmp_path / "results.tsv").mkdir()
    with pytest.raises(LedgerError, match="the ledger has all of it"):
        tsv.write(tmp_path / "results.tsv", [])
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.tsv"]
