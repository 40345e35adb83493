"""`python -m harness.doctor`: can this machine and this checkout do the work, and if not, what mends it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from harness.checks import CHECKS, INSTALL, Check, Place, Row, State, deep, examine

FIRST_LINE = "Checks whether research can run here; reads only, changes nothing, needs no network."
COLOURS = {State.OK: "32", State.WARNING: "35", State.PROBLEM: "31"}


def shown(row: Row, width: int, colour: bool) -> str:
    """A row as lines of text: state, check, finding, and its mend below."""
    start = f"{row.state:<8} {row.check:<11} "
    lines = textwrap.wrap(row.found, max(20, width - len(start)), break_long_words=False) or [""]
    lines += textwrap.wrap(f"-> {row.mend}", max(20, width - len(start))) if row.mend else []
    text = start + ("\n" + " " * len(start)).join(lines)
    return f"\x1b[{COLOURS[row.state]}m{text[:8]}\x1b[0m{text[8:]}" if colour else text


def report(place: Place, checks: Mapping[str, Check]) -> bool:
    """Print rows as they are found; True if the main job can run."""
    tty = sys.stdout.isatty() and place.environ.get("TERM") not in (None, "dumb")
    width = shutil.get_terminal_size().columns if tty else 10_000
    counts: Counter[State] = Counter()
    for row in examine(place, checks):
        counts[row.state] += 1
        print(shown(row, width, tty and "NO_COLOR" not in place.environ), flush=True)
    if bad := counts[State.PROBLEM]:
        print(f"\nNot ready: {bad} problem{'s' if bad > 1 else ''} to mend first.")
    else:
        print("\nReady: python -m harness.run")
    return not bad


def main() -> None:
    """Read the command line, examine, and exit with 0 if the main job can run, else 1."""
    try:
        import typer
    except ImportError as error:
        raise SystemExit(f"{FIRST_LINE}\nproblem  packages    {error}\n  {INSTALL}") from None
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    as_json = typer.Option(False, "--json", help="One JSON object instead of lines.")
    with_torch = typer.Option(False, "--deep", help="Import torch too, and compute on the device (seconds).")

    @app.command(help=FIRST_LINE + " Exit status 0: the main job can run; 1: it cannot.")
    def doctor(json_: bool = as_json, deep_: bool = with_torch) -> None:
        place = Place(Path.cwd(), os.environ)
        checks = {**CHECKS, "compute": deep} if deep_ else CHECKS
        print(FIRST_LINE, file=sys.stderr if json_ else sys.stdout, flush=True)
        if json_:
            rows = list(examine(place, checks))
            ready = all(row.state is not State.PROBLEM for row in rows)
            print(json.dumps({"ready": ready, "rows": [asdict(row) for row in rows]}, indent=2))
        else:
            ready = report(place, checks)
        raise typer.Exit(0 if ready else 1)

    app()


if __name__ == "__main__":
    main()
