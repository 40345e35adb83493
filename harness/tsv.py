"""results.tsv: the night in the five columns of karpathy/autoresearch, for a spreadsheet or a plot."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import LedgerError
from harness.text import one_line
from harness.types import Experiment, Verdict

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
MAX_DESCRIPTION = 500

STATUS = {
    Verdict.KEEP: "keep",
    Verdict.DISCARD: "discard",
    Verdict.DUPLICATE: "discard",
    Verdict.FAILED: "crash",
}
"""What is not here has no line: an experiment that runs still, or one without a proposal."""


def write(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write the file anew: a reader meets the old one or the new one, each whole. Raises LedgerError."""
    lines = [_line(experiment) for experiment in experiments if experiment.verdict in STATUS]
    try:
        _replace(path, "".join(f"{line}\n" for line in [HEADER, *lines]))
    except OSError as error:
        mend = "Make room on the disk, or look at the permissions of the folder; the ledger has all of it."
        raise LedgerError(f"{path} cannot be written: {error.strerror}", mend) from error


def _line(experiment: Experiment) -> str:
    assert experiment.verdict is not None
    peaks = [t.result.peak_memory_mb for t in experiment.finished if t.result and t.result.peak_memory_mb is not None]
    fields = [
        (experiment.commit or "")[:7],
        "" if experiment.val_bpb is None else f"{experiment.val_bpb:.6f}",
        f"{max(peaks) / 1024:.1f}" if peaks else "",
        STATUS[experiment.verdict],
        # A field that begins with a double quote would swallow the lines after it in most readers.
        one_line(experiment.title, MAX_DESCRIPTION).replace('"', "'"),
    ]
    return "\t".join(fields)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
