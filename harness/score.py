"""`python -m harness.score FOLDER`: measure a checkpoint as a trial's is measured, and print the summary block."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.types import Result

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Holds model.safetensors, config.json, train.py and trial.json.")],
    corpus: Annotated[str | None, typer.Option(help="Default: the one it was trained on.")] = None,
    scale: Annotated[str | None, typer.Option(help="gpu or cpu. Default: that of the training.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: that of the training.")] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Where no sandbox holds, run the model's code as your user.")
    ] = False,
) -> None:
    """Score a checkpoint on the fixed rows of val: bits per byte, by processes that believe nothing it says."""
    from harness.errors import HarnessError

    asked = {"corpus": corpus, "scale": scale, "device": device}
    print(f"Scoring the checkpoint in {folder} on val.", flush=True)
    try:
        given = {name: value for name, value in asked.items() if value}
        result = measure(folder, given, os.environ, unsandboxed=allow_unsandboxed)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    from harness.summary import block

    print(block(result), end="")
    raise typer.Exit(0 if result.ok else 1)


def measure(folder: Path, asked: dict[str, str], environ: Mapping[str, str], *, unsandboxed: bool = False) -> Result:
    """The score as a result. Raises `HarnessError` where the folder or the corpus cannot be used."""
    import asyncio
    import shutil
    import tempfile

    from harness import corpora, machine
    from harness.errors import CorpusError, UsageError
    from harness.ruler import Ruler
    from harness.scoring.bench import Bench
    from harness.scoring.session import Failure
    from harness.scoring.session import score as run
    from harness.start import corpora_cache, read_text, shelter
    from harness.types import Outcome, Result

    facts = {**_facts(folder), **asked}
    if missing := [name for name in ("corpus", "scale", "device") if name not in facts]:
        options = " ".join(f"--{name} ..." for name in missing)
        raise UsageError(f"{folder} has no trial.json that says how it was trained", f"Say it: {options}")
    with tempfile.TemporaryDirectory(prefix="autoresearch-score-") as scratch:
        # On a copy: prepare.py is ours, whatever lies in the folder.
        room = Path(scratch, "checkpoint")
        room.mkdir()
        for name in ("model.safetensors", "config.json", "train.py"):
            if not (folder / name).is_file():
                raise UsageError(f"{folder} has no {name}", "Give the folder that save_checkpoint wrote.")
            shutil.copyfile(folder / name, room / name)
        ruler = read_text(_ruler(folder))
        (room / "prepare.py").write_text(ruler, encoding="utf-8")
        size = Ruler.read(ruler).scale(facts["scale"])
        corpus = corpora.find(facts["corpus"], size.vocab, corpora_cache(environ))
        if corpus is None:
            raise CorpusError(
                f"Corpus {facts['corpus']} is not prepared for scale {facts['scale']}",
                f"python prepare.py --corpus {facts['corpus']} --scale {facts['scale']}",
            )
        device = machine.pick_device(facts["device"], visible=environ.get("CUDA_VISIBLE_DEVICES"))
        sandbox = shelter(device, 1, environ, unsandboxed=unsandboxed)
        bench = Bench(corpus, facts["corpus"], size, facts["scale"], device.kind, environ, sandbox)
        scored = asyncio.run(run(bench, room, Path(scratch), gpu=device.gpus[0] if device.gpus else None))
    if isinstance(scored, Failure):
        return Result(scored.outcome, scored.reason)
    return Result(
        Outcome.OK,
        val_bpb=scored.val_bpb,
        training_seconds=facts.get("training_seconds"),
        total_seconds=facts.get("total_seconds", 0.0) + scored.seconds,
        tokens=facts.get("tokens", 0),
        steps=facts.get("steps", 0),
        params=scored.params,
        sandbox=sandbox.level,
        gap=scored.gap,
    )


def _facts(folder: Path) -> dict[str, Any]:
    import json

    try:
        found = json.loads((folder / "trial.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _ruler(folder: Path) -> Path:
    """The `prepare.py` of that training, or the checkout's."""
    from harness.git import Repository

    kept = folder / "prepare.py"
    return kept if kept.is_file() else Repository.open(Path.cwd()).root / "prepare.py"


if __name__ == "__main__":
    app()
