"""The source of truth: what it holds, how it fails, and who may write."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import LedgerError, LockedError
from harness.ledger import Ledger, database
from harness.types import Arena, Outcome, Result, Usage, Verdict

ARENA = Arena("python-1f3a", "cpu", "cpu:30", 1, "r0", "EPYC", "2.13.0", 1)
OK = Result(Outcome.OK, val_bpb=1.75, training_seconds=30, total_seconds=36.5, tokens=900, steps=9, params=7)
NASTY = "tab\t line\n '; DROP TABLE experiments; -- \x1b[31m \0 \ud800 \u202e é 🎈"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "café #1?" / "results" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as ledger:
        ledger.start_series("nov20", ARENA, {"seed": 1}, "base")
        yield ledger


def opened(ledger: Ledger, parent: int | None = None, title: str = "try", tag: str = "nov20") -> int:
    """A new experiment with one attempt."""
    id = ledger.open_experiment(tag, ARENA.key, parent, title, "why").id
    ledger.add_attempt(tag, id, f"commit{id}", f"X = {id}\n", f"hash{id}")
    return id


def test_a_series_is_read_as_it_was_started(ledger: Ledger) -> None:
    series = ledger.series("nov20")
    assert series is not None
    assert (series.arena, series.base_commit, series.settings) == (ARENA, "base", {"seed": 1})
    assert not series.finished
    assert ledger.series("other") is None


def test_a_tag_starts_once(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="already"):
        ledger.start_series("nov20", ARENA, {}, "base")


def test_the_last_unfinished_tag_is_the_one_that_was_worked_on_last(ledger: Ledger) -> None:
    ledger.start_series("nov21", ARENA, {}, "base")
    assert ledger.last_unfinished() == "nov21"
    ledger.finish("nov21")
    assert ledger.last_unfinished() == "nov20"
    ledger.finish("nov20")
    assert ledger.last_unfinished() is None
    ledger.reopen("nov20")
    assert ledger.last_unfinished() == "nov20"
    assert ledger.tags() == ["nov21", "nov20"]


def test_experiments_are_numbered_from_zero_in_each_tag(ledger: Ledger) -> None:
    ledger.start_series("nov21", ARENA, {}, "base")
    assert [opened(ledger), opened(ledger), opened(ledger, tag="nov21")] == [0, 1, 0]


def test_an_experiment_is_read_as_it_was_written(ledger: Ledger) -> None:
    opened(ledger)
    usage = Usage(10, 5, 3, 0.25)
    made = ledger.open_experiment("nov20", ARENA.key, 0, "wider", "more", "width", "search", "p", 0.01, usage)
    ledger.add_attempt("nov20", made.id, "c1", "X = 1", "h1")
    ledger.add_attempt("nov20", made.id, "c2", "X = 2", "h2")
    ledger.start_trial("nov20", made.id, 2, 0, 17)
    ledger.finish_trial("nov20", made.id, 2, 0, OK)
    ledger.judge("nov20", made.id, Verdict.KEEP, "better", 0.02)
    read = ledger.experiment("nov20", made.id)
    assert (read.parent, read.title, read.hypothesis, read.category) == (0, "wider", "more", "width")
    assert (read.researcher, read.program_hash, read.expected_gain, read.usage) == ("search", "p", 0.01, usage)
    assert (read.commit, [attempt.number for attempt in read.attempts]) == ("c2", [1, 2])
    assert (read.trials[0].seed, read.trials[0].result) == (17, OK)
    assert (read.verdict, read.reason, read.gain) == (Verdict.KEEP, "better", 0.02)
    assert ledger.source("nov20", made.id) == "X = 2"


def test_what_is_cached_is_what_another_connection_reads(ledger: Ledger, path: Path) -> None:
    for id in (opened(ledger), opened(ledger, 0), opened(ledger, 1)):
        ledger.start_trial("nov20", id, 1, 0, 1)
    ledger.finish_trial("nov20", 1, 1, 0, OK)
    ledger.judge("nov20", 1, Verdict.KEEP, "better", 0.1)
    ledger.add_attempt("nov20", 2, "again", "X = 9", "h9")
    ledger.abandon("nov20")
    with Ledger.open(path, readonly=True) as other:
        assert other.experiments("nov20") == ledger.experiments("nov20")


def test_what_another_process_wrote_is_seen_at_once(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    with Ledger.open(path, readonly=True) as reader:
        assert reader.experiment("nov20", 0).verdict is None
        ledger.judge("nov20", 0, Verdict.KEEP, "baseline")
        assert reader.experiment("nov20", 0).verdict is Verdict.KEEP


def test_a_list_that_was_given_out_does_not_change_later(ledger: Ledger) -> None:
    opened(ledger)
    before = ledger.experiments("nov20")
    opened(ledger)
    assert len(before) == 1


def test_a_verdict_is_written_once(ledger: Ledger) -> None:
    opened(ledger)
    first = ledger.judge("nov20", 0, Verdict.DISCARD, "worse", -0.1)
    assert ledger.judge("nov20", 0, Verdict.DISCARD, "again", 5.0) == first
    with pytest.raises(LedgerError, match="judged already"):
        ledger.judge("nov20", 0, Verdict.KEEP, "no, better")
    assert ledger.experiment("nov20", 0) == first


def test_no_other_program_rewrites_a_verdict_by_mistake(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    ledger.judge("nov20", 0, Verdict.DISCARD, "worse")
    browser = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="written once"):
        browser.execute("UPDATE experiments SET verdict = 'keep'")
    browser.close()


def test_a_trial_stands_before_its_work_starts(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    with Ledger.open(path, readonly=True) as other:
        (trial,) = other.experiment("nov20", 0).trials
        assert trial.result is None


def test_a_trial_has_one_result(ledger: Ledger) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.finish_trial("nov20", 0, 1, 0, OK)
    with pytest.raises(LedgerError, match="not running"):
        ledger.finish_trial("nov20", 0, 1, 0, Result(Outcome.CRASH, "no"))
    with pytest.raises(LedgerError, match="ended already"):
        ledger.start_trial("nov20", 0, 1, 0, 1)
    assert ledger.experiment("nov20", 0).val_bpb == 1.75


def test_a_result_for_a_trial_that_never_started_is_refused(ledger: Ledger) -> None:
    opened(ledger)
    with pytest.raises(LedgerError, match="not running"):
        ledger.finish_trial("nov20", 0, 1, 0, OK)


def test_a_trial_that_was_cut_off_is_lost_and_can_be_started_again(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    assert ledger.abandon("nov20") == 1
    (lost,) = ledger.experiment("nov20", 0).trials
    assert lost.result is not None
    assert lost.result.outcome is Outcome.LOST
    ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.finish_trial("nov20", 0, 1, 0, OK)
    (trial,) = ledger.experiment("nov20", 0).trials
    assert trial.result == OK
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT outcome FROM trials ORDER BY row").fetchall() == [("lost",), ("ok",)]
    connection.close()


def test_a_trial_that_is_started_twice_was_lost_the_first_time(ledger: Ledger) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    assert ledger.abandon("nov20") == 1


def test_abandoning_touches_one_tag_and_no_finished_trial(ledger: Ledger) -> None:
    ledger.start_series("nov21", ARENA, {}, "base")
    for tag in ("nov20", "nov21"):
        id = opened(ledger, tag=tag)
        ledger.start_trial(tag, id, 1, 0, 1)
        ledger.start_trial(tag, id, 1, 1, 2)
    ledger.finish_trial("nov20", 0, 1, 0, OK)
    assert ledger.abandon("nov20") == 1
    assert ledger.abandon("nov20") == 0
    assert ledger.experiment("nov20", 0).trials[0].result == OK
    assert [trial.result for trial in ledger.experiment("nov21", 0).trials] == [None, None]


def test_the_first_experiment_with_a_text_is_found_by_its_hash(ledger: Ledger) -> None:
    opened(ledger)
    id = opened(ledger)
    ledger.add_attempt("nov20", id, "c", "X", "hash0")
    assert ledger.tried("nov20", "hash0") == 0
    assert ledger.tried("nov20", "hash1") == 1
    assert ledger.tried("nov20", "never") is None
    assert ledger.tried("nov21", "hash0") is None


def test_untrusted_text_is_stored_and_never_obeyed(ledger: Ledger) -> None:
    made = ledger.open_experiment("nov20", ARENA.key, None, NASTY, NASTY, NASTY, NASTY)
    ledger.add_attempt("nov20", made.id, "c", "print('\0')\r\n", "h")
    ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.finish_trial("nov20", 0, 1, 0, Result(Outcome.CRASH, NASTY))
    ledger.judge("nov20", 0, Verdict.FAILED, NASTY)
    ledger.event("nov20", "news", NASTY)
    kept = NASTY.replace("\0", "\\x00").replace("\ud800", "\\ud800")
    read = ledger.experiment("nov20", 0)
    assert {read.title, read.hypothesis, read.category, read.researcher, read.reason} == {kept}
    assert ledger.source("nov20", 0) == "print('\0')\r\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_stored_as_none(ledger: Ledger, value: float) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.finish_trial("nov20", 0, 1, 0, Result(Outcome.INVALID, "not finite", val_bpb=value, claimed_mfu=value))
    experiment = ledger.judge("nov20", 0, Verdict.FAILED, "", value)
    assert experiment.val_bpb is None
    assert experiment.gain is None


@pytest.mark.parametrize("steps", [2**63, -(2**63) - 1])
def test_a_number_too_large_is_a_ledger_error_and_writes_nothing(ledger: Ledger, steps: int) -> None:
    opened(ledger)
    ledger.start_trial("nov20", 0, 1, 0, 1)
    with pytest.raises(LedgerError, match="cannot be stored"):
        ledger.finish_trial("nov20", 0, 1, 0, Result(Outcome.OK, steps=steps))
    assert ledger.experiment("nov20", 0).trials[0].result is None


def test_a_source_that_is_no_unicode_is_a_ledger_error(ledger: Ledger) -> None:
    opened(ledger)
    with pytest.raises(LedgerError, match="cannot be stored"):
        ledger.add_attempt("nov20", 0, "c", "\ud800", "h")
    assert len(ledger.experiment("nov20", 0).attempts) == 1


def test_order_is_by_number_though_the_clock_is_set_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    ledger.start_series("nov21", ARENA, {}, "base")
    for _ in range(3):
        opened(ledger)
    for _ in range(2):
        ledger.start_trial("nov20", 0, 1, 0, 1)
    ledger.finish_trial("nov20", 0, 1, 0, OK)
    assert [experiment.id for experiment in ledger.experiments("nov20")] == [0, 1, 2]
    assert ledger.tags() == ["nov20", "nov21"]
    assert ledger.experiment("nov20", 0).val_bpb == 1.75


def test_an_experiment_or_source_that_is_missing_is_an_error_that_names_it(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no experiment 7 in nov20"):
        ledger.experiment("nov20", 7)
    with pytest.raises(LedgerError, match="no experiment 7 in nov20"):
        ledger.add_attempt("nov20", 7, "c", "X", "h")
    ledger.open_experiment("nov20", ARENA.key, None, "t", "h")
    with pytest.raises(LedgerError, match=r"no train\.py"):
        ledger.source("nov20", 0)


def test_a_row_without_what_it_belongs_to_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.open_experiment("never started", ARENA.key, None, "t", "h")
    with pytest.raises(LedgerError):
        ledger.open_experiment("nov20", ARENA.key, 5, "t", "h")
    opened(ledger)
    with pytest.raises(LedgerError):
        ledger.start_trial("nov20", 0, 2, 0, 1)
    assert len(ledger.experiments("nov20")) == 1


def test_confirmations_are_read_in_the_order_they_were_made(ledger: Ledger) -> None:
    opened(ledger)
    ledger.confirm("nov20", 0, 101, 1.75)
    ledger.confirm("nov20", 0, 102, 1.74)
    assert [(one.seed, one.holdout_bpb) for one in ledger.confirmations("nov20")] == [(101, 1.75), (102, 1.74)]


def test_every_write_is_on_disk_when_the_call_returns(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    copy = path.with_name("copy.db")
    for end in ("", "-wal"):
        copy.with_name(copy.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    with Ledger.open(copy) as other:
        assert other.experiments("nov20") == ledger.experiments("nov20")


KILLED = """
import sys
from pathlib import Path
from harness.ledger import Ledger
with Ledger.open(Path(sys.argv[1])) as ledger:
    ledger.start_trial("nov20", 0, 1, 0, 1)
    print("started", flush=True)
    sys.stdin.read()
"""


def test_a_killed_harness_loses_nothing_that_was_written(ledger: Ledger, path: Path) -> None:
    opened(ledger)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGKILL)
    (trial,) = ledger.experiment("nov20", 0).trials
    assert trial.result is None
    assert ledger.abandon("nov20") == 1


def test_threads_may_write_and_read_side_by_side(ledger: Ledger) -> None:
    opened(ledger)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(10):
                ledger.event("nov20", "tick", str(index))
                assert ledger.experiments("nov20")[0].id == 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_that_make_a_ledger_at_once_meet_one_whole_ledger(path: Path) -> None:
    barrier = threading.Barrier(4)
    tags: list[list[str]] = []

    def make() -> None:
        barrier.wait()
        with Ledger.open(path) as ledger:
            tags.append(ledger.tags())

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tags == [[]] * 4


# What cannot be opened


def test_a_ledger_that_is_missing_is_made_for_writing_alone(path: Path) -> None:
    with pytest.raises(LedgerError, match="Start a run first"):
        Ledger.open(path, readonly=True)
    Ledger.open(path).close()
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.tags() == []


def test_a_reader_cannot_write(ledger: Ledger, path: Path) -> None:
    with Ledger.open(path, readonly=True) as reader, pytest.raises(LedgerError, match="permission"):
        reader.finish("nov20")


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("no database at all\n" * 100)
    for readonly in (False, True):
        with pytest.raises(LedgerError, match="Move the file away"):
            Ledger.open(path, readonly)
    assert path.read_text() == "no database at all\n" * 100


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="no ledger of this harness"):
        Ledger.open(path)
    assert path.read_bytes() == content


def test_a_ledger_of_a_newer_harness_is_refused(path: Path) -> None:
    Ledger.open(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for readonly in (False, True):
        with pytest.raises(LedgerError, match="version 99"):
            Ledger.open(path, readonly)


# A ledger of an older harness


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger of version 1, with one experiment and its trial."""
    path.parent.mkdir(parents=True)
    schema = database.SCHEMA.replace("    gap REAL,\n", "")
    assert schema != database.SCHEMA
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(schema)
    connection.execute(f"PRAGMA application_id = {database.APPLICATION}")
    connection.execute("PRAGMA user_version = 1")
    arena = '{"corpus":"c","scale":"cpu","budget":"cpu:30","scorer":1,"ruler":"r","device":"d","torch":"2","threads":1}'
    connection.execute("INSERT INTO series VALUES ('nov20', 1, ?, '{}', 'base', 0.5, 0)", (arena,))
    experiment = ("nov20", 0, "a", None, "t", "h", "", "s", 0.5, None, 0, 0, 0, 0.0, "", "keep", "", None, 2.5)
    connection.execute(f"INSERT INTO experiments VALUES ({', '.join('?' * len(experiment))})", experiment)
    connection.execute("INSERT INTO attempts VALUES ('nov20', 0, 1, 'commit0', 'hash0', 'X = 0')")
    trial = (1, "nov20", 0, 1, 0, 17, 0.5, "ok", "", 1.75, 30.0, 36.5, 4.0, 900, 9, 5.0, 7, None, 1, 0)
    connection.execute(f"INSERT INTO trials VALUES ({', '.join('?' * len(trial))})", trial)
    connection.close()
    return path


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_a_ledger_of_version_1_keeps_its_rows_and_takes_new_ones(old: Path) -> None:
    audited = replace(OK, gap=-0.0005)
    for _ in range(2):
        with Ledger.open(old) as ledger:
            first = ledger.experiment("nov20", 0)
            assert (first.verdict, first.val_bpb) == (Verdict.KEEP, 1.75)
            assert first.trials[0].result == Result(Outcome.OK, "", 1.75, 30.0, 36.5, 4.0, 900, 9, 5.0, 7)
            id = opened(ledger, 0)
            ledger.start_trial("nov20", id, 1, 0, 17)
            read = ledger.finish_trial("nov20", id, 1, 0, audited)
            assert [trial.result for trial in read.trials] == [audited]
    assert version(old) == database.VERSION == 2


def test_a_ledger_of_version_1_is_read_and_left_as_it_is(old: Path) -> None:
    with Ledger.open(old, readonly=True) as reader:
        result = reader.experiment("nov20", 0).trials[0].result
        assert result is not None
        assert (result.val_bpb, result.gap) == (1.75, None)
        assert version(old) == 1
        with Ledger.open(old) as ledger:  # a run brings it up to date while somebody reads
            id = opened(ledger, 0)
            ledger.start_trial("nov20", id, 1, 0, 17)
            ledger.finish_trial("nov20", id, 1, 0, replace(OK, gap=0.25))
        result = reader.experiment("nov20", 1).trials[0].result
        assert result is not None
        assert result.gap == 0.25


def test_an_upgrade_that_fails_leaves_the_ledger_whole(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(database.UPGRADES, 2, "ALTER TABLE nothing ADD COLUMN gap REAL")
        with pytest.raises(LedgerError):
            Ledger.open(old)
    assert version(old) == 1
    with Ledger.open(old) as ledger:
        assert ledger.experiment("nov20", 0).val_bpb == 1.75


def test_a_damaged_ledger_is_an_error_with_a_mend(ledger: Ledger, path: Path) -> None:
    for _ in range(50):
        opened(ledger, title="x" * 500)
    ledger.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="recover"), Ledger.open(path) as damaged:
        damaged.experiments("nov20")


def test_a_full_disk_is_an_error_with_a_mend_and_loses_nothing(ledger: Ledger) -> None:
    opened(ledger)
    connection = ledger._rows._connection
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(LedgerError, match="Make room"):
        opened(ledger, title="x" * 100_000)
    assert len(ledger.experiments("nov20")) == 1
    connection.execute("PRAGMA max_page_count = 1000000")
    assert opened(ledger) == 1


def test_a_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path / "file" / "ledger.db")


AS_A_GUEST = """
import os, sys
from pathlib import Path
from harness.errors import LedgerError
from harness.ledger import Ledger
if os.geteuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
with Ledger.open(Path(sys.argv[1]), readonly=True) as ledger:
    print(ledger.tags())
try:
    Ledger.open(Path(sys.argv[1]))
except LedgerError as error:
    print(error)
"""


def test_in_a_folder_that_cannot_be_written_to_the_ledger_can_still_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results"
        with Ledger.open(folder / "ledger.db") as ledger:
            ledger.start_series("nov20", ARENA, {}, "base")
        Path(name).chmod(0o755)
        (folder / "ledger.db").chmod(0o444)
        folder.chmod(0o555)
        command = [sys.executable, "-c", AS_A_GUEST, str(folder / "ledger.db")]
        tags, error = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n", 1)
        folder.chmod(0o755)
    assert tags == "['nov20']"
    assert "cannot be used" in error
    assert "permission" in error


# The lock


def test_one_harness_works_on_a_tag(ledger: Ledger, path: Path) -> None:
    with Ledger.open(path) as other, ledger.lock("nov20"):
        with pytest.raises(LockedError, match=f"process {os.getpid()} .*since"), other.lock("nov20"):
            pass
        with other.lock("nov21"):
            pass
    with Ledger.open(path) as other, other.lock("nov20"):
        pass


HOLDER = """
import sys
from pathlib import Path
from harness.ledger import Ledger
with Ledger.open(Path(sys.argv[1])) as ledger, ledger.lock("nov20"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_error_names_the_process_that_holds_a_tag_and_its_death_frees_it(ledger: Ledger, path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match="--tag") as caught, ledger.lock("nov20"):
            pass
        assert f"process {process.pid} ({sys.executable} -c import sys" in caught.value.problem
        process.send_signal(signal.SIGKILL)
    assert (path.parent / "nov20/.lock").read_text()
    with ledger.lock("nov20"):
        pass


@pytest.mark.parametrize(
    "note", ["", "{}", "[]", "nonsense", '{"pid": "x"}', '{"pid": 1, "host": "a", "started": 1e99}']
)
def test_what_stands_in_a_lock_file_is_no_lock_and_never_in_the_way(ledger: Ledger, path: Path, note: str) -> None:
    lock = path.parent / "nov20/.lock"
    lock.parent.mkdir()
    lock.write_text(note)
    with ledger.lock("nov20"):
        lock.write_text(note)
        with pytest.raises(LockedError, match=r"another process|process 1 on a"), ledger.lock("nov20"):
            pass


def test_a_lock_file_that_is_a_link_is_not_followed(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    (path.parent / "nov20").mkdir()
    (path.parent / "nov20/.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="cannot be made"), ledger.lock("nov20"):
        pass
    assert not (tmp_path / "elsewhere").exists()
