"""How the state of a run is drawn: parts of the live view, as rich renders them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.figures import amount, figure, signed
from harness.text import one_line
from harness.told import TITLE_LIMIT, Board, speed
from harness.types import Progress, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

KEPT_ROWS = 3

_PAST = {
    Verdict.KEEP: "kept",
    Verdict.DISCARD: "discarded",
    Verdict.FAILED: "failed",
    Verdict.NO_PROPOSAL: "without proposal",
    Verdict.DUPLICATE: "duplicate",
}


def state(board: Board) -> Table:
    """Best so far, what was made, and the last discoveries."""
    table = grid(6, 0)
    best, start = board.best, board.start
    if best is None:
        table.add_row(dim("  best"), "no score yet" if start is None else f"{figure(start)}  the baseline")
    else:
        gain = "" if board.gain is None else f"{signed(board.gain)} over the baseline's {figure(start)}"
        table.add_row(dim("  best"), styled((figure(best.val_bpb), "bold green"), f"  #{best.id:<4}  {gain}"))
    told = ", ".join(f"{n} {_PAST[verdict]}" for verdict in Verdict if (n := board.verdicts[verdict]))
    made = sum(board.verdicts.values())
    table.add_row(dim("  made"), f"{made} experiment{'' if made == 1 else 's'}{': ' if told else ''}{told}")
    for at, kept in enumerate(reversed(board.kept[-KEPT_ROWS:])):
        line = styled(f"{figure(kept.val_bpb)}  #{kept.id:<4}  ", (signed(kept.gain), "green"))
        table.add_row(dim("" if at else "  kept"), line.append(f"  {one_line(kept.title, TITLE_LIMIT)}"))
    return table


def trials(board: Board, width: int, rows: int) -> RenderableType:
    """One line for each running trial, at most `rows`."""
    from rich.console import Group

    running = sorted(board.running.values(), key=lambda each: (each[0].experiment, each[0].index))
    if not running:
        return dim("  waiting for a proposal")
    bar = min(40, max(10, (width - 64) // 2))
    table = grid(-6, 0, -4, bar + 6, -7, -6, -6)
    table.add_row(*(dim(name) for name in ("", "", "seed", "budget", "loss", "tok/s", "steps")))
    for job, progress in running[:rows]:
        table.add_row(
            f"#{job.experiment}",
            styled(board.titles.get(job.experiment, "")),
            str(job.seed),
            _spent(progress, bar),
            figure(progress.loss, most=100) or "-",
            amount(speed(progress)) or "-",
            amount(progress.steps),
        )
    table.width = width - 3  # room for the ^C a terminal echoes, which would else wrap and shift the picture
    return Group(table, *([dim(f"        and {len(running) - rows} more")] if len(running) > rows else []))


def _spent(progress: Progress, width: int) -> Text:
    """How much of the budget is spent, as a bar; outside the training, which part of the trial runs."""
    if progress.phase != "training":
        return styled((one_line(progress.phase, width), "magenta"))
    share = min(1.0, max(0.0, progress.fraction)) if math.isfinite(progress.fraction) else 0.0
    halves = int(2 * width * share)
    full = "━" * (halves // 2) + "╸" * (halves % 2)
    return styled((full, "green"), ("─" * (width - len(full)), "dim"), f" {100 * share:3.0f} %")


def grid(*widths: int, wrap: bool = False) -> Table:
    """A table without lines; a negative width is right-aligned, 0 takes what is left."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for width in widths:
        if width:
            table.add_column(width=abs(width), justify="right" if width < 0 else "left", no_wrap=True)
        else:
            table.add_column(ratio=1, no_wrap=not wrap)
    return table


def styled(*parts: str | tuple[str, str]) -> Text:
    """Text, with styles where they are given, that rich takes for no markup whatever is in it."""
    from rich.text import Text

    return Text.assemble(*parts)


def dim(word: str) -> Text:
    """Text that stands back."""
    return styled((word, "dim"))
