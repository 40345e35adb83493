"""What a person sees of a run: a live screen on a terminal, plain lines anywhere else.

Titles and reasons are text of a model, so they reach the terminal only through `harness.text`, and never as
rich markup. A view is told things and remembers them; it asks nothing, waits for nothing and raises nothing,
not even when its terminal is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Self, TextIO, cast

from harness.figures import duration, figure, signed
from harness.picture import dim, grid, state, styled, trials
from harness.plain import PlainView
from harness.text import one_line
from harness.told import REASON_LIMIT, TITLE_LIMIT, Board, Clock, Deaf, Heading
from harness.types import Experiment, Job, Progress, Result, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["Heading", "LiveView", "PlainView", "open_view"]

FRAMES_PER_SECOND = 2.0
SHOW_CURSOR = b"\x1b[?25h\r\n"

_STYLES = {Verdict.KEEP: "bold green", Verdict.DISCARD: "dim", Verdict.FAILED: "red"}
_MARKS = {Verdict.KEEP: "✓ ", Verdict.FAILED: "✗ "}


def open_view(stream: TextIO, heading: Heading) -> LiveView | PlainView:
    """The live view if `stream` is a terminal that can show it, else the plain one."""
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if not console.is_dumb_terminal and console.encoding.startswith("utf"):
            return LiveView(stream, heading)
    return PlainView(stream, heading)


class LiveView:
    """The running trials and the state of the night at the foot of the terminal; what is over scrolls above.

    Told from one thread and drawn from another. `_lock` guards the board and is never held while printing:
    rich takes its own lock first and asks for the picture inside it.
    """

    def __init__(
        self, stream: TextIO, heading: Heading, *, clock: Clock = time.monotonic, now: Clock = time.time
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self._heading = heading
        self._clock, self._now = clock, now
        self._began = clock()
        self._fresh = 0
        self._over = False
        self._board = Board.of(heading.past)
        self._lock = threading.Lock()
        self._console = Console(file=cast(TextIO, Deaf(stream)), highlight=False, markup=False, emoji=False)
        own = stream in (sys.stdout, sys.stderr)
        self._live = Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=FRAMES_PER_SECOND,
            redirect_stdout=own,
            redirect_stderr=own,
        )

    def __enter__(self) -> Self:
        # Someone else's handler ends the program in good order, and so leaves this context.
        mine = threading.current_thread() is threading.main_thread()
        if mine and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminated)
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        try:
            self._live.stop()
        finally:
            if signal.getsignal(signal.SIGTERM) == self._terminated:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """Give the cursor back, then die of the signal as if there had been no handler.

        Written past rich and its locks, since they may be held where the signal struck.
        """
        with suppress(OSError, ValueError):
            os.write(self._stream.fileno(), SHOW_CURSOR)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def say(self, text: str) -> None:
        row = grid(5, 0, wrap=True)
        row.add_row(self._stamp(), styled(one_line(text, 4 * REASON_LIMIT)))
        self._print(row)

    def trial_started(self, job: Job) -> None:
        self.trial_progress(job, Progress("starting"))

    def trial_progress(self, job: Job, progress: Progress) -> None:
        with self._lock:
            self._board.progressed(job, progress)

    def trial_ended(self, job: Job, result: Result) -> None:
        with self._lock:
            self._board.ended(job, result)
            title = self._board.titles.get(job.experiment, "")
        if not result.ok:
            word = f"  {result.outcome.replace('_', ' ')}"
            self._row(job.experiment, (word, "magenta"), title, reason=result.reason)
        elif job.experiment == 0 and job.index == 0:
            self._row(0, ("  first seed", ""), title, result.val_bpb)

    def experiment_opened(self, experiment: Experiment) -> None:
        with self._lock:
            self._board.opened(experiment)

    def experiment_judged(self, experiment: Experiment) -> None:
        verdict = experiment.verdict
        with self._lock:
            self._board.judged(experiment)
            self._fresh += experiment.id != 0
        if verdict is None:
            return
        word = (_MARKS.get(verdict, "  ") + verdict.replace("_", " "), _STYLES.get(verdict, "magenta"))
        reason = "" if verdict in (Verdict.KEEP, Verdict.DISCARD) else experiment.reason
        if experiment.id == 0 and verdict is Verdict.KEEP:
            word = ("  baseline", "bold")
        self._row(experiment.id, word, experiment.title, experiment.val_bpb, experiment.gain, reason)

    def _row(
        self,
        number: int,
        word: tuple[str, str],
        title: str,
        val_bpb: float | None = None,
        gain: float | None = None,
        reason: str = "",
    ) -> None:
        """One finished thing, above the live region for good. `word` has its style beside it."""
        style = word[1]
        what = styled((one_line(title, TITLE_LIMIT), "dim" if style == "dim" else ""))
        if reason:
            what.append(f"  {one_line(reason, REASON_LIMIT)}", "dim")
        row = grid(5, -4, 13, -6, -7, 0, wrap=True)
        row.add_row(self._stamp(), str(number), styled(word), figure(val_bpb), styled((signed(gain), style)), what)
        self._print(row)

    def _print(self, row: Table) -> None:
        self._live.refresh()  # or the picture below the row would be one from before it
        self._console.print(row)

    def _stamp(self) -> Text:
        return dim(time.strftime("%H:%M", time.localtime(self._now())))

    def _picture(self) -> RenderableType:
        """All below the scrollback, for the terminal's present size."""
        from rich.console import Group

        width, height = self._console.size
        with self._lock:
            parts: list[RenderableType] = [self._rule(width), state(self._board)]
            if not self._over:
                parts += ["", trials(self._board, width, max(1, height - 12))]
        return Group(*parts)

    def _rule(self, width: int) -> Text:
        """Tag, researcher, stop condition, pace and elapsed time in one line across the screen."""
        heading, seconds = self._heading, self._clock() - self._began
        left = styled(("── ", "dim"), (one_line(heading.tag, 40), "bold"))
        for word in (heading.researcher, f"until {heading.until}"):
            left.append(" · ", "dim").append(one_line(word, 60))
        pace = f"{3600 * self._fresh / seconds:.0f} an hour · " if self._fresh and seconds > 0 else ""
        right = styled(f" {pace}{duration(seconds)}", (" ──", "dim"))
        left.truncate(max(1, width - right.cell_len - 3), overflow="ellipsis")
        fill = "─" * (width - left.cell_len - right.cell_len - 1)
        return left.append(f" {fill}", "dim").append_text(right)
