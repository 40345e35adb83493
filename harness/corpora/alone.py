"""One process at a time: a lock that the kernel gives back when its holder ends, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.corpora.source import Say


@contextmanager
def alone(lock: Path, say: Say, busy: str) -> Iterator[None]:
    """Hold the lock file, which is made if need be and stays. Where another process does, say `busy` and wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
