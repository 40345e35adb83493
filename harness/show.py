"""`python -m harness.show N`: one experiment, with all its evidence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import GitError
from harness.figures import duration, figure, megabytes, signed
from harness.ledger import Ledger
from harness.reading import find_root, find_series, ledger_path, reading
from harness.standings import lineage
from harness.text import one_line, printable, tail_bytes
from harness.types import Experiment, Trial

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

LINE, PARAGRAPH, DIFF = 300, 8_000, 100_000
"""Characters at most."""
LOG_BYTES, LOG_LINES = 16_384, 40

STYLES = {"+": "green", "-": "red", "@": "cyan"}
TRIAL = ("attempt", "seed", "outcome", "val_bpb", "steps", "tokens/s", "seconds", "memory", "level", "gap", "reason")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def show(
    number: Annotated[int, typer.Argument(min=0, help="Of the experiment, as in the leaderboard; 0 is the baseline.")],
    tag: Annotated[str | None, typer.Option(help="Name of the series. Default: the last one.")] = None,
) -> None:
    """Show one experiment: idea, verdict, lineage, trials, its change of train.py, the end of its log. Only reads."""
    from rich.console import Console

    with reading():
        root = find_root(Path.cwd())
        with Ledger.open(ledger_path(root), readonly=True) as ledger:
            name = find_series(ledger, tag).tag
            experiment = ledger.experiment(name, number)
            known = {(name, one.id): one for one in ledger.experiments(name)}
        # In a pipe a line is as long as it is.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100_000)
        for part in parts(root, experiment, lineage(experiment, known)):
            console.print(part, soft_wrap=True)


def parts(root: Path, experiment: Experiment, line: list[Experiment]) -> Iterator[RenderableType]:
    """What is shown, from top to bottom. `line` is the experiment's lineage, itself first."""
    folder = root / "results" / experiment.tag / f"{experiment.id:04d}"
    yield _text(
        f"Experiment {experiment.id} of tag {one_line(experiment.tag, LINE)}: its idea and its evidence.", "bold"
    )
    yield from _idea(experiment, line)
    if experiment.trials:
        yield _heading("Trials")
        yield from _trials(experiment)
    yield _heading("Change of train.py")
    yield from _diff(root, experiment, line)
    trial = _told_most(experiment)
    if trial:
        log = folder / f"a{trial.attempt}-s{trial.index}" / "output.log"
        yield _heading(f"End of {_relative(log, root)}")
        yield from _log(log)
    yield _heading("Evidence")
    yield from _evidence(root, folder, experiment)


def _idea(experiment: Experiment, line: list[Experiment]) -> Iterator[RenderableType]:
    verdict = (experiment.verdict or "open").replace("_", " ")
    gain = "" if experiment.gain is None else f", {signed(experiment.gain)} over its parent"
    reason = f": {printable(experiment.reason, PARAGRAPH)}" if experiment.reason else ""
    yield _text(f"\n{one_line(experiment.title, LINE)}", "bold")
    if experiment.hypothesis:
        yield _text(printable(experiment.hypothesis, PARAGRAPH))
    category = f" ({one_line(experiment.category, LINE)})" if experiment.category else ""
    yield _text(f"\nresearcher  {one_line(experiment.researcher, LINE)}{category}")
    yield _text(f"verdict     {verdict}{gain}{reason}")
    yield _text(f"score       {_score(experiment)}")
    yield _text("lineage     " + " <- ".join(f"#{one.id} ({_score(one)})" for one in line))


def _score(experiment: Experiment) -> str:
    if experiment.val_bpb is None:
        return "none"
    error = "" if experiment.stderr is None else f" ± {figure(experiment.stderr)}"
    return figure(experiment.val_bpb) + error


def _trials(experiment: Experiment) -> Iterator[RenderableType]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in TRIAL:
        table.add_column(name, overflow="fold", no_wrap=name != "reason")
    for trial in experiment.trials:
        table.add_row(*map(_text, _trial(trial)))
    yield table


def _trial(trial: Trial) -> list[str]:
    result = trial.result
    if result is None:
        return [str(trial.attempt), str(trial.seed), "running"]
    speed = result.tokens / result.training_seconds if result.training_seconds else None
    return [
        str(trial.attempt),
        str(trial.seed),
        result.outcome.replace("_", " "),
        figure(result.val_bpb, 6),
        str(result.steps),
        "" if speed is None else f"{speed:,.0f}",
        duration(result.total_seconds),
        megabytes(result.peak_memory_mb),
        str(result.sandbox),
        figure(result.gap, 6, "+"),
        one_line(result.reason, 2_000),
    ]


def _diff(root: Path, experiment: Experiment, line: list[Experiment]) -> Iterator[Text]:
    if len(line) < 2:
        yield _text("None: it is the baseline.", "dim")
        return
    ours, theirs = experiment.commit, line[1].commit
    if ours is None or theirs is None:
        yield _text("None: it has no train.py of its own.", "dim")
        return
    from harness.git import Repository

    try:
        diff = Repository.open(root).diff(theirs, ours)
    except GitError as error:
        yield _text(f"Not available: {error}", "dim")
        return
    for row in printable(diff, DIFF).splitlines() or ["None: the text is that of its parent."]:
        yield _text(row, STYLES.get(row[:1], ""))


def _told_most(experiment: Experiment) -> Trial | None:
    """The last trial that failed, or else the last one."""
    ended = [trial for trial in experiment.trials if trial.result and not trial.result.ok]
    return next(reversed(ended or experiment.trials), None)


def _log(path: Path) -> Iterator[Text]:
    try:
        tail = tail_bytes(path, LOG_BYTES)
    except OSError as error:
        yield _text(f"Not available: {os.strerror(error.errno or 0)}", "dim")
        return
    lines = printable(tail, 4 * LOG_BYTES).splitlines() or ["It is empty."]
    if len(lines) > LOG_LINES:
        yield _text(f"(its last {LOG_LINES} lines)", "dim")
    for line in lines[-LOG_LINES:]:
        yield _text(line)


def _evidence(root: Path, folder: Path, experiment: Experiment) -> Iterator[Text]:
    from harness.git import Repository

    for attempt in experiment.attempts:
        ref = Repository.attempt_ref(experiment.tag, experiment.id, attempt.number)
        yield _text(f"git show {one_line(ref, LINE)}    {attempt.commit[:12]}")
    for place in sorted(folder.glob("a*-s*")):
        yield _text(_relative(place, root) + "/")
    if not folder.exists():
        yield _text(f"{_relative(folder, root)}/ is not there.", "dim")


def _relative(path: Path, root: Path) -> str:
    return one_line(str(path.relative_to(root)), LINE)


def _heading(title: str) -> Text:
    return _text(f"\n── {title}", "bold")


def _text(text: str, style: str = "") -> Text:
    """Text that rich takes as it is: no markup in it is obeyed."""
    from rich.text import Text

    return Text(text, style)


if __name__ == "__main__":
    app()
