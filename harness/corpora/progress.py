"""How far a preparation is: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from harness.corpora.source import Say

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY = 5.0
"""Seconds between two plain lines."""
DRAW_EVERY = 0.2


class Progress:
    """Counts units and bytes of text, and shows them. A context manager."""

    def __init__(self, say: Say, total: int) -> None:
        """`total`: units in all."""
        self._say, self._total = say, total
        self._phase, self._units, self._bytes = "", 0, 0
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._shown = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            # Drawn when there is news alone: a source that fetches has a bar of its own meanwhile.
            self._bars = self._stack.enter_context(Bars(*columns, auto_refresh=False, transient=True))
            self._task = self._bars.add_task("", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def phase(self, name: str) -> None:
        """What is done now; bytes are counted anew for each."""
        if name != self._phase:
            self._phase, self._bytes = name, 0
        self._show(DRAW_EVERY if self._bars else LINE_EVERY)

    def read(self, size: int) -> None:
        """So many more bytes of text are through."""
        self._bytes += size
        self._show(DRAW_EVERY if self._bars else LINE_EVERY)

    def unit_done(self) -> None:
        self._units += 1

    def _show(self, every: float) -> None:
        if time.monotonic() - self._shown < every:
            return
        self._shown = time.monotonic()
        text = f"{self._phase}, {self._bytes / 1e6:,.0f} MB of text"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=text, completed=self._units, refresh=True)
        else:
            self._say(f"  {text}, {self._units:,} of {self._total:,} units")
