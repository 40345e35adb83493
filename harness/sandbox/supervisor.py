"""The process between the harness and one untrusted command; nothing of the command outlives it.

Run with orders on its standard input (see `process.Supervised`), it has the walls put up around the command
(`launch`), and looks whether it keeps to its bounds (`watch`). It is a subreaper, so daemons that detach themselves
become its children and die with the rest. Its standard input is a lifeline that the harness holds: when that closes,
because the trial is over or because the harness was killed, it ends the whole tree. Output of the command is drained
with a cap, so that it can neither fill the disk nor block on a full pipe. Last, it reports on standard output how the
command ended and what it used.

It stands before every process under test, so it must start quickly: it imports little of the standard library (no
dataclasses, typing, pathlib or json: half its time) and what a level needs only at that level.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import resource
import selectors
import signal
import sys
import time
from collections import deque

from harness.sandbox.launch import Status, start
from harness.sandbox.watch import Exceeded, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS, DISK_SECONDS = 0.05, 0.5
"""Between two looks at processes and memory, and at the scratch folder."""
HEAD_BYTES = 1 << 19
TAIL_BYTES = 1 << 19
SWEEP_SECONDS = 60.0
"""Some thousand processes, on one core, take their time to end; beyond it something hangs in the kernel."""
MOST_PROCESSES = 1 << 16
"""That are walked at once; a fork bomb can grow as fast as it is counted."""


class CappedLog:
    """The first and the last half megabyte of what the command printed, and how much lay between."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed in `close`
        self._head = 0
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped = 0

    def write(self, data: bytes) -> None:
        head = data[: HEAD_BYTES - self._head]
        if head:
            self._put(head)
            self._head += len(head)
        rest = data[len(head) :]
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
                gone = len(self._tail.popleft())
                self._tail_bytes -= gone
                self._dropped += gone

    def close(self) -> None:
        if self._dropped:
            self._put(f"\n... {self._dropped} bytes left out ...\n".encode())
        for piece in self._tail:
            self._put(piece)
        self._file.close()

    def _put(self, data: bytes) -> None:
        # A full disk must not stop the draining: the command would block on its output.
        with contextlib.suppress(OSError):
            self._file.write(data)


def children(pid: int) -> list[int]:
    """Direct children of a process, of all its threads, zombies included; empty if it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def descendants(pid: int, most: int = MOST_PROCESSES) -> list[int]:
    """All below a process, nearest first; of a tree that grows as it is walked, little more than `most`."""
    found = children(pid)
    for child in found:  # grows while it is walked: breadth first
        found += children(child)
        if len(found) > most:
            break
    return found


def reap(main: int) -> int | None:
    """Collect all that have ended; the wait status of `main` if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == main:
                status = ended[1]
    return status


def sweep(main: int, ended: bool) -> int | None:
    """End every descendant; returns the wait status of `main` if it was collected here.

    Where `main` is bubblewrap, the kernel ends its namespace with it. Others are stopped first and killed then, so
    that a chain of forks cannot run ahead of the walk.
    """
    if not ended:  # afterwards its number may be another's
        os.kill(main, signal.SIGKILL)
    status = None
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        found = descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        collected = reap(main)
        status = status if collected is None else collected
        if not has_children():
            break
        time.sleep(0.002)
    return status


def has_children() -> bool:
    """Zombies included. Asked of `waitid`, since what /proc lists of a tree that changes can lack some."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def drain(pipe: int, log: CappedLog) -> bool:
    """Move what is there into the log; False once the other side is closed."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(pipe, 1 << 16):
            log.write(data)
            if len(data) < 1 << 16:
                return True
        return False
    return True


class End:
    """Why the supervisor stopped waiting: the wait status of a command that ended by itself, or a bound."""

    def __init__(self, status: int | None, exceeded: Exceeded | None = None) -> None:
        self.status, self.exceeded = status, exceeded


class Guard:
    """Looks at the tree below this process as often as it should be looked at."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._processes = self._disk = time.monotonic()

    def look(self) -> Exceeded | None:
        """The bound that is passed, if it is time to look and one is."""
        now = time.monotonic()
        if now - self._processes < LOOK_SECONDS:
            return None
        self._processes = now
        pids = descendants(os.getpid(), self._watch.most_processes)
        exceeded = self._watch.processes(pids)
        if not exceeded and now - self._disk >= DISK_SECONDS:
            exceeded = self._watch.disk(pids)
            # A walk over many files takes its time, and then as long again is waited.
            self._disk = time.monotonic() + (time.monotonic() - now)
        return exceeded


def attend(main: int, pipe: int, wake: int, log: CappedLog, watch: Watch) -> End:
    """Until the command ends, passes a bound, or the lifeline closes."""
    selector = selectors.DefaultSelector()
    for fd in (0, pipe, wake):
        selector.register(fd, selectors.EVENT_READ)
    guard = Guard(watch)
    while True:
        for key, _ in selector.select(LOOK_SECONDS):
            if key.fd == pipe and not drain(pipe, log):
                selector.unregister(pipe)
            elif key.fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                status = reap(main)
                if status is not None:
                    return End(status)
            elif key.fd == 0 and not os.read(0, 4096):
                return End(None)
        if exceeded := guard.look():
            return End(None, exceeded)


def receive() -> dict[str, Any]:
    """The orders: their length in eight bytes, then they themselves. Standard input stays open: it is the lifeline."""
    data, wanted = b"", 8
    while len(data) < wanted:
        piece = os.read(0, wanted - len(data))
        if not piece:
            sys.exit(1)  # the harness is gone
        data += piece
        if len(data) == 8:
            wanted += int.from_bytes(data)
    found: dict[str, Any] = marshal.loads(data[8:])
    return found


def main() -> None:
    """Start the command, stay with it to its end, sweep, report."""
    spec = receive()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")
    # Ctrl-C reaches the whole foreground group; the harness alone decides what it means.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    pipe, pipe_write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(pipe, False)
    log = CappedLog(spec["output"])
    watch = Watch(spec["bounds"], spec["cwd"])
    pid, bwrap = start(spec, pipe_write)
    os.close(pipe_write)
    for fd in spec["fds"]:
        os.close(fd)  # or the other side would never see the command hang up
    end = attend(pid, pipe, wake, log, watch)
    swept = sweep(pid, ended=end.status is not None)
    drain(pipe, log)
    log.close()
    report = {
        **verdict(end, swept, bwrap),
        "exceeded": None if end.exceeded is None else [end.exceeded.what, end.exceeded.figures],
        "max_rss_mb": max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, watch.peak_mb),
    }
    with contextlib.suppress(BrokenPipeError):
        os.write(1, marshal.dumps(report))


def verdict(end: End, swept: int | None, bwrap: Status | None) -> dict[str, Any]:
    """Exit code of the command; whether we cut it; whether it never ran, since its walls could not be put up."""
    status = swept if end.status is None else end.status
    code = None if status is None else os.waitstatus_to_exitcode(status)
    failed = False
    if bwrap is not None and end.status is not None:
        inner = bwrap.exit_code()
        failed = inner is None and code is not None and code > 0
        code = code if inner is None else inner
    return {"code": code, "cut": end.status is None, "failed": failed}
