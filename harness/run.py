"""`python -m harness.run`: a night of research, from wherever the last one ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    tag: Annotated[
        str | None, typer.Option(help="Name of the series. Default: the last unfinished one, else today, as in nov20.")
    ] = None,
    researcher: Annotated[
        str | None, typer.Option(help="Who proposes. Default: search, which needs no key and costs nothing.")
    ] = None,
    experiments: Annotated[
        int | None, typer.Option(help="Make so many more experiments. Default: go on until stopped.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Propose for so many hours; what runs then is finished.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Of one trial: wall:SECONDS, cpu:SECONDS of CPU time, or steps:N. Default: of the scale."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Sizes of model and data, gpu or cpu. Default: by the device.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="climbmix, python, or a file or folder of text. Default: by the device.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="First seed; the i-th is this plus i. Default: 1.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials side by side. Default: one a GPU, or one a core.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda. Default: a GPU that torch can use, else the CPU.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Address to fetch climbmix from, instead of its own.")] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Where no sandbox holds, run code under test as your user.")
    ] = False,
) -> None:
    """Do research on train.py: propose, train, score, judge, keep or leave; and again, until told to stop.

    The first experiment is train.py as it stands. Ctrl-C ends the night safely; started again, it goes on.

    In the morning: python -m harness.leaderboard, and python -m harness.show N.
    """
    from harness.errors import HarnessError
    from harness.night import spend
    from harness.start import Asked

    asked = Asked(
        tag=tag,
        researcher=researcher,
        experiments=experiments,
        hours=hours,
        budget=budget,
        scale=scale,
        corpus=corpus,
        seed=seed,
        workers=workers,
        device=device,
        mirror=mirror,
        allow_unsandboxed=allow_unsandboxed,
    )
    print("Research on train.py: every experiment is committed, trained, scored and judged.", flush=True)
    try:
        code = spend(asked, Path.cwd(), os.environ)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except OSError as error:
        print(f"error: {error}\n  What is finished is in the ledger; mend this and start again.", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\nStopped. What is finished, or prepared, stays.", file=sys.stderr)
        code = 130
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
