"""Between rows of the ledger and the dataclasses of `harness.types`."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import fields, replace
from typing import Any

from harness.text import storable
from harness.types import Attempt, Experiment, Outcome, Result, Trial, Usage, Verdict

RESULT = tuple(field.name for field in fields(Result))
"""Columns of a trial that hold its result, in the order of `Result`."""

EXPERIMENT = (
    "id, arena, parent, title, hypothesis, category, researcher, created, expected_gain,"
    " tokens_in, tokens_cached, tokens_out, dollars, program_hash, verdict, reason, gain, ended"
)
ATTEMPT = "experiment, number, git_commit, source_hash"
TRIAL = f"experiment, attempt, seed_index, seed, started, {', '.join(RESULT)}"

Value = str | int | float | None


def read(cursor: sqlite3.Cursor, tag: str, experiment: int | None = None) -> dict[int, Experiment]:
    """Experiments of a tag by number, or the one; three queries, whatever their number.

    Of trials that were started again, the latest counts. Call it inside a transaction.
    """
    only = "" if experiment is None else " AND {} = ?"
    key: tuple[Value, ...] = (tag,) if experiment is None else (tag, experiment)

    def query(columns: str, table: str, id: str, order: str) -> sqlite3.Cursor:
        where = f"tag = ?{only.format(id)}"
        return cursor.execute(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {order}", key)

    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for id, *rest in query(ATTEMPT, "attempts", "experiment", "experiment, number"):
        attempts[id].append(Attempt(*rest))
    trials: dict[int, dict[tuple[int, int], Trial]] = defaultdict(dict)
    for row in query(TRIAL, "trials", "experiment", "row"):
        trial = _trial(row)
        trials[trial.experiment][trial.attempt, trial.index] = trial
    found = {}
    for row in query(EXPERIMENT, "experiments", "id", "id"):
        one = _experiment(tag, row)
        latest = tuple(trials[one.id][key] for key in sorted(trials[one.id]))
        found[one.id] = replace(one, attempts=tuple(attempts[one.id]), trials=latest)
    return found


def insert(cursor: sqlite3.Cursor, table: str, **values: Value) -> None:
    """Add one row. Names of table and columns are ours; only values come from elsewhere."""
    places = ", ".join("?" * len(values))
    cursor.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values()))


def result_values(result: Result) -> tuple[Value, ...]:
    """The values of `RESULT` for a row. What is not a finite number is stored as none (SQLite has no NaN)."""
    return tuple(_plain(getattr(result, name)) for name in RESULT)


def _plain(value: Value) -> Value:
    return storable(value) if isinstance(value, str) else finite(value)


def finite(value: float | None) -> float | None:
    """The number, or None for NaN and the infinities."""
    return value if value is not None and float("-inf") < value < float("inf") else None


def _trial(row: tuple[Any, ...]) -> Trial:
    experiment, attempt, index, seed, started, outcome, *rest = row
    result = None if outcome is None else Result(Outcome(outcome), *rest)
    return Trial(experiment, attempt, index, seed, started, result)


def _experiment(tag: str, row: tuple[Any, ...]) -> Experiment:
    id, arena, parent, title, hypothesis, category, researcher, created, expected_gain = row[:9]
    program_hash, verdict, reason, gain, ended = row[13:]
    return Experiment(
        tag,
        id,
        arena,
        parent,
        title,
        hypothesis,
        category,
        researcher,
        created,
        expected_gain,
        Usage(*row[9:13]),
        program_hash,
        None if verdict is None else Verdict(verdict),
        reason,
        gain,
        ended,
    )
