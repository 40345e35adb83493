"""What the commands that only read the ledger have in common: where it is found, and how they end."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError, LedgerError
from harness.ledger import Ledger, Series
from harness.text import one_line


def ledger_path(root: Path) -> Path:
    """Where the ledger of a checkout lies, below its top."""
    return root / "results" / "ledger.db"


def find_root(folder: Path) -> Path:
    """Top of the checkout that `folder` is in, by its ledger. Raises LedgerError if there is none."""
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        if ledger_path(place).exists():
            return place
        if (place / ".git").exists():
            break  # what lies above is not ours
    mend = "Start a run first: python -m harness.run. Or change to the checkout that has one."
    raise LedgerError(f"There is no results/ledger.db in {folder} or above it", mend)


def find_series(ledger: Ledger, tag: str | None) -> Series:
    """The series of a tag, or of the last one. Raises LedgerError if there is none."""
    tags = ledger.tags()
    if not tags:
        raise LedgerError(f"The ledger {ledger.path} is empty", "Start a run first: python -m harness.run")
    series = ledger.series(tags[-1] if tag is None else tag)
    if series is None:
        known = ", ".join(one_line(name, 100) for name in tags[-10:])
        raise LedgerError(f"There is no tag {one_line(tag or '', 100)} in the ledger", f"It has: {known}")
    return series


@contextmanager
def reading() -> Iterator[None]:
    """Run the body of a command: its errors go to stderr, and a reader that goes away early is none."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no UTF-8 gets escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # As with `| head`. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
