"""One harness a tag: a lock that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import LedgerError, LockedError
from harness.text import one_line

MAX_NOTE = 4096


@contextmanager
def locked(path: Path, tag: str) -> Iterator[None]:
    """Hold the lock file at `path` as the only writer of `tag`.

    The lock is the kernel's (`flock`): it ends with its process, however that ends. What stands in the file
    only tells others who holds it. Raises LockedError if another process does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LedgerError(f"The lock {path} cannot be made: {error.strerror}", "May you write there?") from error
    try:
        _take(descriptor, path, tag)
        note = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        _write(descriptor, json.dumps(note))
        try:
            yield
        finally:
            # The file stays: were it removed, two could hold locks on two files of one name.
            _write(descriptor, "")
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, tag: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"Tag {tag} is being worked on by {_holder(descriptor)}",
            "Wait for it, end it (Ctrl-C there), or start under another name with --tag.",
        ) from None
    except OSError as error:
        mend = "Put the checkout on a local disk: this file system knows no locks."
        raise LedgerError(f"The lock {path} cannot be taken: {error.strerror}", mend) from error


def _holder(descriptor: int) -> str:
    """Who holds the lock, as far as can be told."""
    try:
        note = json.loads(os.pread(descriptor, MAX_NOTE, 0))
        pid, host, started = int(note["pid"]), str(note["host"]), float(note["started"])
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return "another process"
    if host != socket.gethostname():
        return f"process {pid} on {one_line(host, 80)}, since {since}"
    command = ""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return f"process {pid} ({one_line(command, 200) or 'command unknown'}), since {since}"


def _write(descriptor: int, text: str) -> None:
    with suppress(OSError):  # a full disk must not stop the release of a lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
