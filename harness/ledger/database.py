"""The SQLite file under the ledger: its tables, how it is opened, and its errors in words."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from harness.errors import LedgerError

VERSION = 2
APPLICATION = 0x6175_7265
"""Marks a file as a ledger, so that no other program's database is ever written to."""

OLDEST_SQLITE = (3, 37, 0)
BUSY_SECONDS = 30.0

SCHEMA = """
CREATE TABLE series (
    tag TEXT PRIMARY KEY,
    turn INTEGER NOT NULL UNIQUE,  -- grows each time a tag is started or gone on with; no clock is asked
    arena TEXT NOT NULL,
    settings TEXT NOT NULL,
    base_commit TEXT NOT NULL,
    created REAL NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE experiments (
    tag TEXT NOT NULL REFERENCES series,
    id INTEGER NOT NULL,
    arena TEXT NOT NULL,
    parent INTEGER,
    title TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    category TEXT NOT NULL,
    researcher TEXT NOT NULL,
    created REAL NOT NULL,
    expected_gain REAL,
    tokens_in INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    dollars REAL NOT NULL,
    program_hash TEXT NOT NULL,
    verdict TEXT,
    reason TEXT NOT NULL DEFAULT '',
    gain REAL,
    ended REAL,
    PRIMARY KEY (tag, id),
    FOREIGN KEY (tag, parent) REFERENCES experiments
) STRICT;
CREATE TRIGGER verdict_is_written_once BEFORE UPDATE OF verdict ON experiments
    WHEN OLD.verdict IS NOT NULL BEGIN SELECT RAISE(ABORT, 'a verdict is written once'); END;
CREATE TABLE attempts (
    tag TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    number INTEGER NOT NULL,
    git_commit TEXT NOT NULL,
    source_hash TEXT NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (tag, experiment, number),
    FOREIGN KEY (tag, experiment) REFERENCES experiments
) STRICT;
CREATE INDEX attempts_by_text ON attempts (tag, source_hash);
CREATE TABLE trials (
    row INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    seed_index INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    started REAL NOT NULL,
    outcome TEXT,
    reason TEXT,
    val_bpb REAL,
    training_seconds REAL,
    total_seconds REAL,
    scoring_seconds REAL,
    tokens INTEGER,
    steps INTEGER,
    peak_memory_mb REAL,
    params INTEGER,
    claimed_mfu REAL,
    sandbox INTEGER,
    beside INTEGER,
    gap REAL,
    FOREIGN KEY (tag, experiment, attempt) REFERENCES attempts
) STRICT;
CREATE INDEX trials_by_experiment ON trials (tag, experiment);
CREATE UNIQUE INDEX one_trial_runs ON trials (tag, experiment, attempt, seed_index) WHERE outcome IS NULL;
CREATE TABLE confirmations (
    row INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    holdout_bpb REAL NOT NULL,
    created REAL NOT NULL,
    FOREIGN KEY (tag, experiment) REFERENCES experiments
) STRICT;
CREATE TABLE events (
    row INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
"""

UPGRADES = {2: "ALTER TABLE trials ADD COLUMN gap REAL"}
"""What makes a ledger of the version before into one of this version."""
SEEN_AS = {2: "CREATE TEMP VIEW trials AS SELECT *, NULL AS gap FROM main.trials"}
"""What lets a reader, who may not write, see it as one."""

MENDS = {
    "SQLITE_FULL": "Make room on the disk and start again; all that was recorded before is safe.",
    "SQLITE_READONLY": "Give yourself write permission on the file and on its folder.",
    "SQLITE_CANTOPEN": "Look whether the folder exists and whether you may read and write in it.",
    "SQLITE_PERM": "Look at the permissions of the file and its folder.",
    "SQLITE_NOTADB": "Move the file away; a new ledger is started in its place.",
    "SQLITE_CORRUPT": "Keep a copy, then try `sqlite3 ledger.db .recover | sqlite3 mended.db`.",
    "SQLITE_BUSY": "Another program holds the file; end it (a database browser?) and start again.",
    "SQLITE_IOERR": "Look at the disk: is it full, over quota, or failing?",
}


@contextmanager
def worded(path: Path) -> Iterator[None]:
    """Raise what SQLite or the system says about this file as `LedgerError`."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended codes, as SQLITE_IOERR_WRITE, begin with the name of the plain one.
        name = getattr(error, "sqlite_errorname", "") or ""
        mend = next((text for start, text in MENDS.items() if name.startswith(start)), "")
        raise LedgerError(f"The ledger {path} cannot be used: {error}", mend) from error
    except OSError as error:
        mend = MENDS["SQLITE_FULL" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "SQLITE_CANTOPEN"]
        raise LedgerError(f"The ledger {path} cannot be used: {error.strerror or error}", mend) from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise LedgerError(f"A value cannot be stored in the ledger {path}: {error}") from error


def connect(path: Path, readonly: bool) -> sqlite3.Connection:
    """Open the ledger, and make it if it is missing. Raises LedgerError."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise LedgerError(f"SQLite {sqlite3.sqlite_version} is too old", "Install Python with SQLite 3.37 or newer.")
    with worded(path):
        return _for_reading(path) if readonly else _for_writing(path)


def _for_reading(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise LedgerError(f"There is no ledger at {path}", "Start a run first: python -m harness.run")
    try:
        return _seen_as_new(_checked(_open(path, "ro"), path))
    except sqlite3.OperationalError:
        # In a folder that cannot be written to, SQLite cannot make the files of its write-ahead log. Where
        # none is left over, the file by itself is whole.
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            raise
        return _seen_as_new(_checked(_open(path, "ro&immutable=1"), path))


def _for_writing(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _open(path, "rwc")
    try:
        if not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchone()[0]:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            _create(connection)
        _upgrade(_checked(connection, path))
        # A power failure after COMMIT must not take it back.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        # The ledger has a lock of its own; a researcher may read the past in a thread.
        check_same_thread=False,
    )


def _create(connection: sqlite3.Connection) -> None:
    """Make all tables in one transaction: two that begin at once do not meet a half-made ledger."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        if not cursor.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchone()[0]:
            for statement in _statements(SCHEMA):
                cursor.execute(statement)
            cursor.execute(f"PRAGMA application_id = {APPLICATION}")
            cursor.execute(f"PRAGMA user_version = {VERSION}")
        cursor.execute("COMMIT")


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring a ledger of an older harness to this version, in one transaction: it is never half of one."""
    if _version(connection) == VERSION:
        return
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        for version in range(_version(connection) + 1, VERSION + 1):  # another harness may have been first
            cursor.execute(UPGRADES[version])
        cursor.execute(f"PRAGMA user_version = {VERSION}")
        cursor.execute("COMMIT")


def _seen_as_new(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Lay views of this connection over the tables that an older harness made, as the file cannot be changed."""
    for version in range(_version(connection) + 1, VERSION + 1):
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(SEEN_AS[version])
    return connection


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        version = _version(connection)
        if mark != APPLICATION:
            raise LedgerError(f"{path} is a database, but no ledger of this harness", MENDS["SQLITE_NOTADB"])
        if version > VERSION:
            raise LedgerError(
                f"The ledger {path} has version {version}; this harness knows {VERSION}",
                "Use the harness that wrote it, or a newer one.",
            )
    except BaseException:
        connection.close()
        raise
    return connection
