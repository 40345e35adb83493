"""The leaderboard as a table: drawn by rich on a terminal, plain and of full width in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from harness.figures import amount, duration, figure, megabytes, signed
from harness.standings import Standing, Standings
from harness.text import one_line
from harness.types import Arena, Verdict

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

TITLE, REASON, NAME = 100, 300, 60
ON_SCREEN = 100
"""Rows of an arena that a terminal is shown; a pipe gets them all."""

COLUMNS = {
    "rank": "right",
    "#": "right",
    "verdict": "left",
    "val_bpb": "left",
    "gain": "right",
    "in all": "right",
    "params": "right",
    "memory": "right",
    "time": "right",
    "level": "right",
    "researcher": "left",
    "title": "left",
}
"""Headings, and the side that their column is flush with."""

SPARED = ("researcher", "params", "memory", "time", "gain", "in all", "level", "verdict", "rank")
"""Columns that a narrow terminal goes without, in this order."""
LEAST_TITLE = 24
EDGES = 4
"""Columns that the frame of the table takes beside the gaps between its columns."""

FULL = 3
"""Sandbox level that needs no mention (docs/trust.md)."""
LEVEL = "   level: of the sandbox, 3 is the highest"
LEGEND = "● kept   ± standard error (seeds)   gain: over the parent, and in all over the baseline; + is better"
STYLES = {Verdict.KEEP: "green", Verdict.FAILED: "red", None: "yellow"}


@dataclass(frozen=True, slots=True)
class Board:
    """What a leaderboard shows."""

    title: str
    arenas: tuple[Standings, ...]
    known: Mapping[str, Arena]
    """Arenas by their keys."""


def draw(board: Board, out: TextIO) -> None:
    """Print it."""
    if out.isatty():
        _on_terminal(board, out)
    else:
        out.write("\n".join([board.title, *_plain(board), ""]))


def heading(arena: Standings, known: Mapping[str, Arena]) -> list[str]:
    """The arena, and what was reached in it, in words."""
    place, best, baseline = known.get(arena.arena), arena.incumbent, arena.baseline
    words = f"arena {arena.arena}"
    if place:
        facts = (place.device, f"scale {place.scale}", f"budget {place.budget}", f"corpus {place.corpus}")
        words = one_line(f"{' · '.join(facts)} · torch {place.torch} (arena {arena.arena})", 500)
    counts = ", ".join(f"{arena.count(v)} {word}" for v, word in ((Verdict.KEEP, "kept"), (Verdict.FAILED, "failed")))
    reached = "nothing kept yet"
    if best:
        reached = f"best kept: #{best.experiment.id} with {figure(best.experiment.val_bpb)}"
        if baseline and best.total_gain is not None:
            reached += f", {signed(best.total_gain)} over the baseline's {figure(baseline.experiment.val_bpb)}"
    return [words, f"{len(arena.rows)} experiments, {counts}, {arena.hours:.1f} hours of trials; {reached}"]


def columns(rows: Iterable[Standing]) -> list[str]:
    """The headings that tell something of these rows: without that of the sandbox where all were in a full one."""
    lower = any(row.sandbox is not None and row.sandbox < FULL for row in rows)
    return [name for name in COLUMNS if name != "level" or lower]


def legend(board: Board) -> str:
    """What the signs mean."""
    named = any("level" in columns(arena.rows) for arena in board.arenas)
    return LEGEND + (LEVEL if named else "")


def cells(row: Standing, with_tag: bool) -> dict[str, str]:
    """One line of the table, by the headings of `COLUMNS`."""
    one = row.experiment
    score = figure(one.val_bpb)
    if score:
        score += f" ± {figure(one.stderr)}" if one.stderr is not None else " " * 9
        score += f" ({row.trials})"
    title = one_line(one.title, TITLE)
    if row.rank is None and one.reason:
        title += f": {one_line(one.reason, REASON)}"
    texts = [
        "" if row.rank is None else str(row.rank),
        f"{one_line(one.tag, NAME)} {one.id}" if with_tag else str(one.id),
        f"{'●' if row.kept else ' '} {(one.verdict or 'open').replace('_', ' ')}",
        score,
        signed(one.gain),
        signed(row.total_gain),
        amount(row.params),
        megabytes(row.peak_memory_mb),
        duration(row.total_seconds),
        "" if row.sandbox is None else str(row.sandbox),
        one_line(one.researcher, NAME),
        title,
    ]
    return dict(zip(COLUMNS, texts, strict=True))


def _plain(board: Board) -> Iterable[str]:
    for arena in board.arenas:
        with_tag = arena.tags > 1
        shown = columns(arena.rows)
        rows = [{name: name for name in shown}, *(cells(row, with_tag) for row in arena.rows)]
        widths = {name: max(_width(row[name]) for row in rows) for name in shown}
        yield from ("", *heading(arena, board.known), "")
        for row in rows:
            yield "  ".join(_flush(row[name], widths[name], COLUMNS[name]) for name in shown).rstrip()
    yield from ("", legend(board))


def _flush(text: str, width: int, side: str) -> str:
    gap = " " * (width - _width(text))
    return gap + text if side == "right" else text + gap


def _width(text: str) -> int:
    """Columns that a text takes; some characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _on_terminal(board: Board, out: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, highlight=False)
    console.print(Text(board.title, "bold"))
    for arena in board.arenas:
        console.print()
        for line in heading(arena, board.known):
            console.print(Text(line))
        shown = _on_screen(arena.rows)
        console.print(_table(shown, arena.tags > 1, console.width))
        if len(shown) < len(arena.rows):
            left = len(arena.rows) - len(shown)
            console.print(Text(f"{left} more are not shown; a pipe gets all: python -m harness.leaderboard | less -S"))
    console.print(Text(legend(board), "dim"))


def _on_screen(rows: Sequence[Standing]) -> list[Standing]:
    """The first ones, and all kept ones; as many of those without a score as there is room for."""
    shown = [row for place, row in enumerate(rows) if place < ON_SCREEN or row.kept]
    unscored = [row for row in rows[ON_SCREEN:] if row.rank is None and not row.kept]
    return shown + unscored[-ON_SCREEN // 5 :]


def _table(rows: Sequence[Standing], with_tag: bool, width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    texts = [cells(row, with_tag) for row in rows]
    widths = {name: max(map(_width, [name, *(text[name] for text in texts)])) for name in columns(rows)}
    shown = _fitting(widths, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    # All widths are given: left to itself, rich takes from the narrow columns what a long title has too much.
    room = width - sum(widths[name] + 3 for name in shown if name != "title") - EDGES
    widths["title"] = min(widths["title"], max(LEAST_TITLE, room))
    for name in shown:
        justify: JustifyMethod = "right" if COLUMNS[name] == "right" else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=widths[name])
    for row, text in zip(rows, texts, strict=True):
        style = STYLES.get(row.experiment.verdict, "")
        table.add_row(*(Text(text[name], style) for name in shown))
    return table


def _fitting(widths: Mapping[str, int], width: int) -> list[str]:
    """Of these columns, those that fit beside a readable title; what tells least goes first."""
    shown = list(widths)
    for name in SPARED:
        if (
            sum(widths[kept] + 3 for kept in shown if kept != "title") + min(widths["title"], LEAST_TITLE) + EDGES
            <= width
        ):
            break
        if name in shown:
            shown.remove(name)
    return shown
