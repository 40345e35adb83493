"""The process between the harness and one untrusted command; nothing of the command outlives it.

Run as a script with one JSON argument (see `process.Command`). It is a subreaper, so daemons that detach
themselves become its children and die with the rest. Its standard input is a lifeline that the harness holds:
when that closes, because the trial is over or because the harness was killed, it ends the whole tree. Output of
the command is drained with a cap, so that it can neither fill the disk nor block on a full pipe. Last, it writes
one line to standard output: how the command ended and what it used.

Standard library only: it starts in some 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HEAD_BYTES = 1 << 19
TAIL_BYTES = 1 << 19
SWEEP_SECONDS = 10.0


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
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """All below a process, nearest first."""
    found = children(pid)
    for child in found:  # grows while it is walked: breadth first
        found += children(child)
    return found


def start(spec: dict[str, Any], output: int) -> int:
    """Fork and execute the command in a process group of its own; returns its pid."""
    libc, supervisor = ctypes.CDLL(None), os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        # Dies with the supervisor, should that be killed; its own children do not, which a sandbox must see to.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(127)
        os.setsid()
        os.chdir(spec["cwd"])
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for fd in spec["fds"]:
            os.set_inheritable(fd, True)
        for name, amount in spec["limits"].items():
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
            resource.setrlimit(which, (amount, amount))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as error:
        os.write(2, f"cannot start {spec['argv'][0]}: {error}\n".encode())
    finally:
        os._exit(127)


def reap(main: int) -> int | None:
    """Collect all that have ended; the wait status of `main` if it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == main:
                status = ended[1]
    return status


def sweep(main: int) -> int | None:
    """End every descendant; returns the wait status of `main` if it was collected here.

    Stopped first and killed then, so that a chain of forks cannot run ahead of the walk.
    """
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
        if not children(os.getpid()):
            break
        time.sleep(0.002)
    return status


def drain(pipe: int, log: CappedLog) -> bool:
    """Move what is there into the log; False once the other side is closed."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(pipe, 1 << 16):
            log.write(data)
            if len(data) < 1 << 16:
                return True
        return False
    return True


def watch(main: int, pipe: int, wake: int, log: CappedLog) -> tuple[int | None, bool]:
    """Until the command ends (its wait status) or the lifeline closes (None, True)."""
    selector = selectors.DefaultSelector()
    for fd in (0, pipe, wake):
        selector.register(fd, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == pipe and not drain(pipe, log):
                selector.unregister(pipe)
            elif key.fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                status = reap(main)
                if status is not None:
                    return status, False
            elif key.fd == 0 and not os.read(0, 4096):
                return None, True


def main() -> None:
    """Start the command, stay with it to its end, sweep, report."""
    spec = json.loads(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")
    # Ctrl-C reaches the whole foreground group; the harness alone decides what it means.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    if spec["cores"]:
        os.sched_setaffinity(0, spec["cores"])
    pipe, pipe_write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(pipe, False)
    log = CappedLog(spec["output"])
    pid = start(spec, pipe_write)
    os.close(pipe_write)
    for fd in spec["fds"]:
        os.close(fd)  # or the other side would never see the command hang up
    status, cut = watch(pid, pipe, wake, log)
    swept = sweep(pid)
    drain(pipe, log)
    log.close()
    status = swept if status is None else status
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "code": None if status is None else os.waitstatus_to_exitcode(status),
        "cut": cut,
        "max_rss_mb": usage.ru_maxrss / 1024,
    }
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
