"""CPU time of a process tree: what a trial has spent, whoever in the tree spent it.

Three sources are put together. A living process is read from its own CPU clock (nanoseconds). What its
children used before they were waited for stands in its `cutime` and `cstime` (ticks of 10 ms). And what a
process was last seen to have used is remembered, since a parent that ignores SIGCHLD makes the kernel forget
it. All is read from /proc by a process outside of the trial's PID namespace, if it has one, which sees into it.

A parent that lets its children be forgotten could have work done by short-lived ones whose time, after the last
look at each, is lost. It gives itself away: its children were seen to have more page faults, or to have used
more, than anybody has taken over from them. Such a tree is charged the wall time of all its cores, from the start.
Every other tree, whatever it forks and waits for, is charged what it used.

Not seen: what a tree used after the last look before its end; and forgotten children that were hidden between two
looks behind other short-lived ones, which were waited for and had as many page faults. Where a sandbox keeps the
default action of SIGCHLD in force, no child can be forgotten.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.supervisor import children

TICKS = os.sysconf("SC_CLK_TCK")
ROUNDING = 2 / TICKS
"""Seconds by which `reaped` of one process may be below the truth: two figures, each cut off to ticks."""
DRIFT = 0.05
"""Share by which kernels that account at each switch may find less in `reaped` than in a CPU clock."""
LOOKS = 10
"""That must agree before a tree is found to forget: a child may be waited for in the midst of one."""

Key = tuple[int, int]
"""Pid and start time in ticks since boot: they name a process for good."""


@dataclass(frozen=True, slots=True)
class ProcessTime:
    """CPU seconds and minor page faults of one process at one moment."""

    key: Key
    parent: int
    """Pid."""
    ended: bool
    """It is a zombie."""
    own: float
    reaped: float
    """Of children that ended and were waited for, and of theirs."""
    faults: int
    faults_reaped: int
    """As `reaped`. The kernel counts them exactly."""


Tree = Mapping[Key, ProcessTime]


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
    return ProcessTime(
        (pid, int(fields[19])),
        parent=int(fields[1]),
        ended=fields[0] in (b"Z", b"X"),
        own=own,
        reaped=(int(fields[13]) + int(fields[14])) / TICKS,
        faults=int(fields[7]),
        faults_reaped=int(fields[8]),
    )


def numbers(pid: int) -> list[int]:
    """What the process is called in each PID namespace that it is in, from ours inwards; empty if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return [int(number) for number in line.split()[1:]]
    return []


class TreeClock:
    """CPU seconds that a process tree has used since this object was made. Never goes backwards.

    The root is a supervisor of ours: its own time is not counted, nor is it suspected.
    """

    def __init__(self, root: int, leave_out: int = 0, cores: int = 1) -> None:
        """`leave_out` is a pid whose time is not counted, nor that of its children: the feeder's own.

        `cores` are those that the tree may use.
        """
        self._root, self._leave_out, self._cores = root, leave_out, cores
        self._began = time.monotonic()
        self._last: Tree = {}
        self._last = self._look()
        self._trusted = _trusted(root, self._last)
        self._base = {key: found.own for key, found in self._last.items()}
        self._reaped_before = sum(found.reaped for found in self._last.values())
        self._remembered = 0.0  # what those that ended were seen to have used since the start, and before
        self._used_before = 0.0
        self._owed = 0.0  # what must have been taken over from them by somebody who waited
        self._spent = 0.0
        self.forgets = False
        """It was found to have children that nobody waits for."""

    def spent(self) -> float:
        """Seconds so far. Call it often, and at moments that the tree cannot foresee."""
        now = self._look()
        gone = [key for key in self._last if key not in now and key[0] != self._root]
        self._remembered += sum(self._since(self._last[key]) for key in gone)
        self._used_before += sum(self._base.get(key, 0.0) for key in gone)
        living = sum(self._since(found) for key, found in now.items() if key[0] != self._root)
        # What the gone had used before the start came into `reaped` with the rest of theirs.
        reaped = self._reaped(now) - self._used_before
        self._spent = max(self._spent, living + max(reaped, self._remembered))
        self.forgets = self.forgets or self._found_to_forget(now, gone)
        if self.forgets:
            self._spent = max(self._spent, (time.monotonic() - self._began) * self._cores)
        self._last = now
        return self._spent

    def _found_to_forget(self, now: Tree, gone: list[Key]) -> bool:
        """Whether nobody has taken over from children that ended, though who should have waited for them lives."""
        suspects = {key[0] for key, found in now.items() if not found.ended and key not in self._trusted}
        judged = [self._last[key] for key in gone if _above(key[0], self._last) & suspects]
        if not judged:
            return False  # least of all while the tree comes to its end: the kernel forgets a PID namespace whole
        self._owed += sum(found.own for found in judged)
        faults = sum(found.faults for found in judged) + _faults_reaped(self._last)
        for _ in range(LOOKS):
            short = (1 - DRIFT) * self._owed - self._reaped(now) - ROUNDING * len(now)
            if self._root not in {key[0] for key in now} or (faults <= _faults_reaped(now) and short <= 0):
                return False
            now = self._look()
        return True

    def _since(self, found: ProcessTime) -> float:
        return found.own - self._base.get(found.key, 0.0)

    def _reaped(self, tree: Tree) -> float:
        return sum(found.reaped for found in tree.values()) - self._reaped_before

    def _look(self) -> Tree:
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


def _faults_reaped(tree: Tree) -> int:
    return sum(found.faults_reaped for found in tree.values())


def _above(pid: int, tree: Tree) -> set[int]:
    """Pids of all ancestors of a process."""
    parents = {key[0]: found.parent for key, found in tree.items()}
    above: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in above:
        above.add(pid)
    return above


def _trusted(root: int, tree: Tree) -> set[Key]:
    """The root, and those that a sandbox put between it and the command; they wait for all whom they adopt.

    With a PID namespace that is who stands outside of it, and its first process.
    """
    called = {key: numbers(key[0]) for key in tree}
    depth = len(numbers(root))
    deeper = any(len(names) > depth for names in called.values())
    between = {key for key, names in called.items() if deeper and (len(names) <= depth or names[depth] == 1)}
    return between | {key for key in tree if key[0] == root}
