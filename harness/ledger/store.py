"""What can be written to the ledger, and read from it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import LedgerError
from harness.ledger import rows
from harness.ledger.cached import Cached
from harness.ledger.lock import locked
from harness.text import storable
from harness.types import Arena, Attempt, Experiment, Outcome, Result, Usage, Verdict

_TRIAL = "tag = ? AND experiment = ? AND attempt = ? AND seed_index = ?"


@dataclass(frozen=True, slots=True)
class Series:
    """One tag: what its experiments have in common."""

    tag: str
    arena: Arena
    base_commit: str
    """Of the baseline; the `prepare.py` in it is the ruler of the whole series."""
    settings: Mapping[str, object]
    created: float
    """Unix time."""
    finished: bool


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One training with a fresh seed, scored on holdout; researchers never see it."""

    experiment: int
    seed: int
    holdout_bpb: float
    created: float
    """Unix time."""


class Ledger:
    """The ledger in one file. Every write is one transaction and on disk when the call returns.

    All errors are LedgerError. Several threads may use it; what other processes write is seen at once.
    """

    def __init__(self, rows: Cached) -> None:
        self._rows = rows
        self.path = rows.path

    @classmethod
    def open(cls, path: Path, readonly: bool = False) -> Self:
        """Open it, and make it if it is missing, unless only for reading."""
        return cls(Cached(path, readonly))

    def close(self) -> None:
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def lock(self, tag: str) -> AbstractContextManager[None]:
        """Be the only writer of this tag among all processes. Raises LockedError that names the other."""
        return locked(self.path.parent / tag / ".lock", tag)

    # Series

    def start_series(self, tag: str, arena: Arena, settings: Mapping[str, object], base_commit: str) -> Series:
        """Begin a new tag. `settings` must be fit for JSON; they are kept to be read again."""
        series = Series(tag, arena, base_commit, dict(settings), time.time(), False)
        with self._rows.write(tag) as cursor:
            if cursor.execute("SELECT 1 FROM series WHERE tag = ?", (tag,)).fetchone():
                raise LedgerError(f"Tag {tag} is in the ledger already", "Choose another one with --tag.")
            rows.insert(
                cursor,
                "series",
                tag=tag,
                turn=self._next_turn(cursor),
                arena=json.dumps(asdict(arena)),
                settings=json.dumps(settings),
                base_commit=base_commit,
                created=series.created,
            )
        return series

    def series(self, tag: str) -> Series | None:
        query = "SELECT arena, base_commit, settings, created, finished FROM series WHERE tag = ?"
        with self._rows.read() as cursor:
            row = cursor.execute(query, (tag,)).fetchone()
        if row is None:
            return None
        arena, base_commit, settings, created, finished = row
        return Series(tag, Arena(**json.loads(arena)), base_commit, json.loads(settings), created, bool(finished))

    def tags(self) -> list[str]:
        """All tags; the one that was started or gone on with last is the last."""
        with self._rows.read() as cursor:
            return [tag for (tag,) in cursor.execute("SELECT tag FROM series ORDER BY turn")]

    def last_unfinished(self) -> str | None:
        query = "SELECT tag FROM series WHERE NOT finished ORDER BY turn DESC LIMIT 1"
        with self._rows.read() as cursor:
            row = cursor.execute(query).fetchone()
        return row[0] if row else None

    def finish(self, tag: str) -> None:
        """Nothing more is to be done for this tag."""
        with self._rows.write(tag) as cursor:
            cursor.execute("UPDATE series SET finished = 1 WHERE tag = ?", (tag,))

    def reopen(self, tag: str) -> None:
        """Go on with a tag: it is unfinished, and the last one, from now on."""
        with self._rows.write(tag) as cursor:
            turn = self._next_turn(cursor)
            cursor.execute("UPDATE series SET finished = 0, turn = ? WHERE tag = ?", (turn, tag))

    @staticmethod
    def _next_turn(cursor: sqlite3.Cursor) -> int:
        turn: int = cursor.execute("SELECT coalesce(max(turn), 0) + 1 FROM series").fetchone()[0]
        return turn

    # Experiments

    def open_experiment(
        self,
        tag: str,
        arena_key: str,
        parent: int | None,
        title: str,
        hypothesis: str,
        category: str = "",
        researcher: str = "",
        program_hash: str = "",
        expected_gain: float | None = None,
        usage: Usage | None = None,
    ) -> Experiment:
        """Write the row of a new experiment and give it the next number of its tag, from 0."""
        with self._rows.write(tag) as cursor:
            query = "SELECT coalesce(max(id), -1) + 1 FROM experiments WHERE tag = ?"
            id = cursor.execute(query, (tag,)).fetchone()[0]
            rows.insert(
                cursor,
                "experiments",
                tag=tag,
                id=id,
                arena=arena_key,
                parent=parent,
                title=storable(title),
                hypothesis=storable(hypothesis),
                category=storable(category),
                researcher=storable(researcher),
                created=time.time(),
                expected_gain=rows.finite(expected_gain),
                program_hash=program_hash,
                **asdict(usage or Usage()),
            )
            return self._rows.renew(cursor, tag, id)

    def add_attempt(self, tag: str, id: int, commit: str, source: str, source_hash: str) -> Attempt:
        """Add the next text of `train.py`. The text itself is kept too, lest its git ref is deleted."""
        with self._rows.write(tag) as cursor:
            rows.insert(
                cursor,
                "attempts",
                tag=tag,
                experiment=id,
                number=len(self._rows.one(cursor, tag, id).attempts) + 1,
                git_commit=commit,
                source_hash=source_hash,
                source=source,
            )
            return self._rows.renew(cursor, tag, id).attempts[-1]

    def judge(self, tag: str, id: int, verdict: Verdict, reason: str, gain: float | None = None) -> Experiment:
        """Write the verdict, once; the same verdict again changes nothing, another one is a LedgerError."""
        with self._rows.write(tag) as cursor:
            earlier = self._rows.one(cursor, tag, id)
            if earlier.verdict is verdict:
                return earlier
            if earlier.verdict is not None:
                raise LedgerError(
                    f"Experiment {id} of {tag} was judged already: {earlier.verdict}, now {verdict}",
                    "A verdict is written once; a change of mind is a new experiment.",
                )
            cursor.execute(
                "UPDATE experiments SET verdict = ?, reason = ?, gain = ?, ended = ? WHERE tag = ? AND id = ?",
                (verdict, storable(reason), rows.finite(gain), time.time(), tag, id),
            )
            return self._rows.renew(cursor, tag, id)

    def experiment(self, tag: str, id: int) -> Experiment:
        with self._rows.read() as cursor:
            return self._rows.one(cursor, tag, id)

    def experiments(self, tag: str) -> list[Experiment]:
        """All of a tag, by number."""
        with self._rows.read() as cursor:
            return list(self._rows.all(cursor, tag).values())

    def source(self, tag: str, id: int) -> str:
        """Text of `train.py` of the last attempt."""
        query = "SELECT source FROM attempts WHERE tag = ? AND experiment = ? ORDER BY number DESC LIMIT 1"
        with self._rows.read() as cursor:
            row = cursor.execute(query, (tag, id)).fetchone()
        if row is None:
            raise LedgerError(f"Experiment {id} of {tag} has no train.py", "It ended before it had one.")
        return str(row[0])

    def tried(self, tag: str, source_hash: str) -> int | None:
        """The first experiment that had a text of this hash."""
        query = "SELECT min(experiment) FROM attempts WHERE tag = ? AND source_hash = ?"
        with self._rows.read() as cursor:
            found: int | None = cursor.execute(query, (tag, source_hash)).fetchone()[0]
        return found

    # Trials

    def start_trial(self, tag: str, id: int, attempt: int, index: int, seed: int) -> None:
        """Write the row of a trial before its work starts. A lost one may be started again."""
        key = (tag, id, attempt, index)
        query = f"SELECT outcome FROM trials WHERE {_TRIAL} AND outcome != ?"
        with self._rows.write(tag) as cursor:
            self._lose(cursor, _TRIAL, key)
            if done := cursor.execute(query, (*key, Outcome.LOST)).fetchone():
                raise LedgerError(f"Trial {index} of experiment {id} of {tag} has ended already: {done[0]}")
            rows.insert(
                cursor,
                "trials",
                tag=tag,
                experiment=id,
                attempt=attempt,
                seed_index=index,
                seed=seed,
                started=time.time(),
            )
            self._rows.renew(cursor, tag, id)

    def finish_trial(self, tag: str, id: int, attempt: int, index: int, result: Result) -> Experiment:
        """Write what was measured of a trial that was started."""
        with self._rows.write(tag) as cursor:
            if not self._end(cursor, result, _TRIAL, (tag, id, attempt, index)):
                raise LedgerError(f"Trial {index} of attempt {attempt} of {tag} {id} is not running")
            return self._rows.renew(cursor, tag, id)

    def abandon(self, tag: str) -> int:
        """Mark all trials without a result as lost; how many there were."""
        with self._rows.write(tag) as cursor:
            count = self._lose(cursor, "tag = ?", (tag,))
            self._rows.forget(tag)
        return count

    def _lose(self, cursor: sqlite3.Cursor, where: str, key: tuple[str | int, ...]) -> int:
        result = Result(Outcome.LOST, "The harness ended before the trial did.")
        return self._end(cursor, result, where, key)

    @staticmethod
    def _end(cursor: sqlite3.Cursor, result: Result, where: str, key: tuple[str | int, ...]) -> int:
        """Give the running trials among these their result; how many they were."""
        columns = ", ".join(f"{name} = ?" for name in rows.RESULT)
        statement = f"UPDATE trials SET {columns} WHERE outcome IS NULL AND {where}"
        return cursor.execute(statement, (*rows.result_values(result), *key)).rowcount

    # Confirmations and events

    def confirm(self, tag: str, id: int, seed: int, holdout_bpb: float) -> None:
        """Add one score on holdout."""
        with self._rows.write(tag) as cursor:
            rows.insert(
                cursor,
                "confirmations",
                tag=tag,
                experiment=id,
                seed=seed,
                holdout_bpb=holdout_bpb,
                created=time.time(),
            )

    def confirmations(self, tag: str) -> list[Confirmation]:
        query = "SELECT experiment, seed, holdout_bpb, created FROM confirmations WHERE tag = ? ORDER BY row"
        with self._rows.read() as cursor:
            return [Confirmation(*row) for row in cursor.execute(query, (tag,))]

    def event(self, tag: str, kind: str, text: str) -> None:
        """Note that something happened: started, stopped, branch moved, ..."""
        with self._rows.write(tag) as cursor:
            rows.insert(cursor, "events", tag=tag, at=time.time(), kind=kind, text=storable(text))
