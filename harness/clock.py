"""CPU time of a process tree: what a trial has spent, whoever in the tree spent it.

Two sources are put together. A living process, or one that nobody has waited for, is read from its own CPU clock
(nanoseconds). What its children used before they were waited for stands in its `cutime` and `cstime` (ticks of
10 ms). All is read from /proc by a process outside of the trial's PID namespace, if it has one, which sees into it.
Who is orphaned moves to the first process of the namespace, or to the supervisor, which wait for all.

A child could also be forgotten as it ends, by a parent that ignores SIGCHLD. At sandbox levels 3 and 2 the kernel
refuses to ignore it (`sandbox.seccomp`); at level 1 what such a child was last seen to have used is remembered. Not
seen at any level: what a tree used after the last look before its end.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

from harness.sandbox.supervisor import children

TICKS = os.sysconf("SC_CLK_TCK")

Key = tuple[int, int]
"""Pid and start time in ticks since boot: they name a process for good."""


@dataclass(frozen=True, slots=True)
class ProcessTime:
    """CPU seconds of one process at one moment."""

    key: Key
    own: float
    reaped: float
    """Of children that ended and were waited for, and of theirs."""


def read_process(pid: int) -> ProcessTime | None:
    """CPU time of `pid`, zombies included; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICKS
    with suppress(OSError):
        own = time.clock_gettime((~pid << 3) | 2)  # finer than ticks: the CPU clock of another process
    return ProcessTime((pid, int(fields[19])), own, (int(fields[13]) + int(fields[14])) / TICKS)


class TreeClock:
    """CPU seconds that a process tree has used since this object was made. Never goes backwards."""

    def __init__(self, root: int, leave_out: int = 0, *, count_root: bool = False) -> None:
        """`leave_out` is a pid whose time is not counted, nor that of its children: the feeder's own.

        `count_root`: the root works itself, and is no supervisor of ours, whose own time is nobody's.
        """
        self._root, self._leave_out = root, leave_out
        self._uncounted = 0 if count_root else root
        self._last: dict[Key, ProcessTime] = {}
        self._last = self._look()
        self._base = {key: found.own for key, found in self._last.items()}
        self._reaped_before = sum(found.reaped for found in self._last.values())
        self._remembered = 0.0  # what those that ended were seen to have used since the start, and before
        self._used_before = 0.0
        self._spent = 0.0

    def spent(self) -> float:
        """Seconds so far. Call it often, and at moments that the tree cannot foresee."""
        now = self._look()
        gone = [key for key in self._last if key not in now and key[0] != self._uncounted]
        self._remembered += sum(self._since(self._last[key]) for key in gone)
        self._used_before += sum(self._base.get(key, 0.0) for key in gone)
        living = sum(self._since(found) for key, found in now.items() if key[0] != self._uncounted)
        # What the gone had used before the start came into `reaped` with the rest of theirs.
        reaped = sum(found.reaped for found in now.values()) - self._reaped_before - self._used_before
        self._spent = max(self._spent, living + max(reaped, self._remembered))
        self._last = now
        return self._spent

    def _since(self, found: ProcessTime) -> float:
        return found.own - self._base.get(found.key, 0.0)

    def _look(self) -> dict[Key, ProcessTime]:
        found: dict[Key, ProcessTime] = {}
        queue = [self._root]
        while queue:
            pid = queue.pop(0)
            if pid != self._leave_out and (times := read_process(pid)):
                found[times.key] = times
                queue += children(pid)
        # One whose parent ended meanwhile has moved to another, where the walk may have been already.
        for key in self._last.keys() - found.keys():
            if (times := read_process(key[0])) and times.key == key:
                found[key] = times
        return found
