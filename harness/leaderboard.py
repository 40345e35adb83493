"""`python -m harness.leaderboard`: what the night came to, ranked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness import board
from harness.errors import LedgerError, UsageError
from harness.ledger import Ledger
from harness.reading import find_root, find_series, ledger_path, reading
from harness.standings import Standing, standings
from harness.text import one_line

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def leaderboard(
    tag: Annotated[str | None, typer.Option(help="Name of the series. Default: the last one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, and nothing else.")] = False,
    as_tsv: Annotated[bool, typer.Option("--tsv", help="The same as a table, tab separated.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All series of this checkout, by arena.")] = False,
) -> None:
    """Rank the experiments of a series by validation bits per byte; lower is better.

    Only reads, also while a run goes on. A score is ranked against those of its arena alone: same corpus, scale,
    budget, device. A change of seed moves a score too: look at its error and at the verdict.
    """
    with reading():
        if as_json and as_tsv:
            raise UsageError("--json and --tsv ask for two forms at once", "Leave one of them out.")
        if every and tag is not None:
            raise UsageError("--all and --tag ask for two things at once", "Leave one of them out.")
        gathered = gather(find_root(Path.cwd()), tag, every)
        if as_json or as_tsv:
            print(gathered.title, file=sys.stderr)
            rows = [record(row) for arena in gathered.arenas for row in arena.rows]
            print(json.dumps(rows, indent=1) if as_json else tsv(rows))
        else:
            board.draw(gathered, sys.stdout)


def show(root: Path, tag: str) -> None:
    """Print the leaderboard of one tag of the checkout at `root`. Raises LedgerError."""
    board.draw(gather(root, tag), sys.stdout)


def gather(root: Path, tag: str | None = None, every: bool = False) -> board.Board:
    """All that there is to show of a tag, the last one by default, or of every one. Raises LedgerError."""
    with Ledger.open(ledger_path(root), readonly=True) as ledger:
        chosen = find_series(ledger, tag)
        tags = ledger.tags() if every else [chosen.tag]
        series = [found for name in tags if (found := ledger.series(name))]
        ranked = standings(experiment for name in tags for experiment in ledger.experiments(name))
    what = "all tags" if every else f"tag {one_line(chosen.tag, 100)}"
    if not ranked:
        raise LedgerError(f"There is no experiment of {what} yet", "Start a run: python -m harness.run")
    title = f"Leaderboard of {what}: experiments by validation bits per byte, lower is better."
    return board.Board(title, tuple(ranked), {one.arena.key: one.arena for one in series})


def record(row: Standing) -> dict[str, str | int | float | None]:
    """One experiment as a flat object. Of its trials: means of seconds and tokens, most memory and gap, least level."""
    one = row.experiment
    return {
        "rank": row.rank,
        "id": one.id,
        "tag": one.tag,
        "arena": one.arena,
        "verdict": one.verdict,
        "val_bpb": one.val_bpb,
        "stderr": one.stderr,
        "trials": row.trials,
        "gain": one.gain,
        "total_gain": row.total_gain,
        "commit": one.commit,
        "parent": one.parent,
        "title": one.title,
        "hypothesis": one.hypothesis,
        "category": one.category,
        "researcher": one.researcher,
        "reason": one.reason,
        "training_seconds": row.training_seconds,
        "total_seconds": row.total_seconds,
        "tokens": row.tokens,
        "params": row.params,
        "peak_memory_mb": row.peak_memory_mb,
        "sandbox": row.sandbox,
        "gap": row.gap,
    }


def tsv(rows: list[dict[str, str | int | float | None]]) -> str:
    """A header and a line each. What is not known is an empty field; texts are on one line."""

    def field(value: str | int | float | None) -> str:
        # A double quote at the start of a field would swallow the lines after it in most readers.
        return one_line(value, 10_000).replace('"', "'") if isinstance(value, str) else f"{value}"

    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if value is None else field(value) for value in row.values()) for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
