"""Transactions, and the experiments that were read in them, kept until their rows change."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from harness.errors import LedgerError
from harness.ledger import rows
from harness.ledger.database import connect, worded
from harness.types import Experiment


class Cached:
    """A connection whose every use is one transaction, from any thread; its errors are LedgerError."""

    def __init__(self, path: Path, readonly: bool) -> None:
        self.path = path
        self._connection = connect(path, readonly)
        self._mutex = RLock()
        self._known: dict[str, dict[int, Experiment]] = {}
        self._data_version: int | None = None

    def close(self) -> None:
        with self._mutex, worded(self.path):
            self._connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Cursor]:
        """One state of the ledger, whatever others write meanwhile."""
        with self._transaction("BEGIN") as cursor:
            yield cursor

    @contextmanager
    def write(self, tag: str) -> Iterator[sqlite3.Cursor]:
        """On disk after the block, or never written."""
        try:
            with self._transaction("BEGIN IMMEDIATE") as cursor:
                yield cursor
        except BaseException:
            self.forget(tag)  # it may hold what was taken back
            raise

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Cursor]:
        with self._mutex, worded(self.path):
            cursor = self._connection.cursor()
            try:
                cursor.execute(begin)
                yield cursor
                cursor.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.rollback()
                cursor.close()

    def all(self, cursor: sqlite3.Cursor, tag: str) -> dict[int, Experiment]:
        """Experiments of a tag by number; read again only after another connection wrote."""
        version = cursor.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._known.clear()
            self._data_version = version
        if tag not in self._known:
            self._known[tag] = rows.read(cursor, tag)
        return self._known[tag]

    def one(self, cursor: sqlite3.Cursor, tag: str, id: int) -> Experiment:
        found = self.all(cursor, tag).get(id)
        if found is None:
            raise LedgerError(f"There is no experiment {id} in {tag}", "See python -m harness.leaderboard.")
        return found

    def renew(self, cursor: sqlite3.Cursor, tag: str, id: int) -> Experiment:
        """Read one experiment again after its rows were changed."""
        self.all(cursor, tag).update(rows.read(cursor, tag, id))
        return self.one(cursor, tag, id)

    def forget(self, tag: str) -> None:
        """Read the tag anew when it is next asked for."""
        self._known.pop(tag, None)
