"""CPU time of a process tree: what a trial has spent, whoever in the tree spent it.

Three sources are put together. A living process is read from its own CPU clock (nanoseconds). What its
children used before they were waited for stands in its `cutime` and `cstime` (ticks of 10 ms). And what a
process was last seen to have used is remembered, since a parent that ignores SIGCHLD makes the kernel forget
it. Not seen: a process that lives for less than the time between two looks and is not waited for.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.supervisor import children

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessTime:
    """CPU seconds of one process at one moment."""

    pid: int
    born: int
    """Start time in ticks since boot: with the pid it names a process for good."""
    own: float
    reaped: float
    """Of children that ended and were waited for, and of theirs."""


def read_process(pid: int) -> ProcessTime | None:
    """CPU time of `pid`, zombies included; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICKS
    with suppress(OSError):
        own = time.clock_gettime((~pid << 3) | 2)  # finer than ticks: the CPU clock of another process
    return ProcessTime(pid, int(fields[19]), own, (int(fields[13]) + int(fields[14])) / TICKS)


class TreeClock:
    """CPU seconds that a process tree has used since this object was made. Never goes backwards."""

    def __init__(self, root: int, leave_out: int = 0) -> None:
        """`leave_out` is a pid whose time is not counted, nor that of its children: the feeder's own."""
        self._root, self._leave_out = root, leave_out
        first = self._look()
        self._base = {key: found.own for key, found in first.items()}
        self._seen = dict(self._base)
        self._reaped_before = sum(found.reaped for found in first.values())
        self._spent = 0.0

    def spent(self) -> float:
        """Seconds so far. Call it a few times a second, so that no process comes and goes unseen."""
        now = self._look()
        self._seen.update({key: found.own for key, found in now.items()})
        living = sum(found.own - self._base.get(key, 0.0) for key, found in now.items())
        gone = self._seen.keys() - now.keys()
        remembered = sum(self._seen[key] - self._base.get(key, 0.0) for key in gone)
        # What the gone had used before the start came into `reaped` with the rest of theirs.
        reaped = sum(found.reaped for found in now.values()) - self._reaped_before
        reaped -= sum(self._base.get(key, 0.0) for key in gone)
        self._spent = max(self._spent, living + max(reaped, remembered))
        return self._spent

    def _look(self) -> dict[tuple[int, int], ProcessTime]:
        found: dict[tuple[int, int], ProcessTime] = {}
        queue = [self._root]
        while queue:
            pid = queue.pop(0)
            if pid != self._leave_out and (times := read_process(pid)):
                found[pid, times.born] = times
                queue += children(pid)
        return found
