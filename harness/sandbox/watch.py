"""Holds an untrusted command to its bounds: limits of the kernel's, and a watch over the whole tree.

Part of the supervisor, which must start quickly: it imports little of the standard library, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Mapping
from itertools import chain

UNSEEN = -1
"""In place of a size."""
LOOKED_AT = 8
"""Processes, the largest, whose shared memory is told from their own."""


class Exceeded:
    """Which bound was passed (`memory`, `processes` or `disk`), and the figures in words."""

    def __init__(self, what: str, figures: str) -> None:
        self.what, self.figures = what, figures


def set_limits(limits: Mapping[str, int]) -> None:
    """For this process and all that it starts; never above what it has."""
    for name, amount in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(which, (amount, amount))


class Watch:
    """Looks whether a tree of processes and its scratch folder keep to their bounds."""

    def __init__(self, bounds: Mapping[str, int], scratch: str) -> None:
        """`bounds`: the fields of `bounds.Bounds`."""
        self.memory_mb, self.most_processes = bounds["memory_mb"], bounds["processes"]
        self.disk_mb, self.files = bounds["disk_mb"], bounds["files"]
        self.scratch = scratch
        self.peak_mb = 0.0

    def processes(self, pids: Iterable[int]) -> Exceeded | None:
        """Memory and number of the processes. Some 0.1 ms each."""
        pids = list(pids)
        if len(pids) > self.most_processes:
            return self._too_many(len(pids))
        threads, held_kb = 0, {}
        for pid in pids:
            status = _status(pid)
            threads += status.get("Threads", 0)
            held_kb[pid] = status.get("RssAnon", 0) + status.get("RssShmem", 0)
        if sum(held_kb.values()) >> 10 > self.memory_mb:
            # Pages that several share were counted for each. To look closer takes long, more so while they fork: a
            # bomb must not grow unseen meanwhile.
            largest = sorted(pids, key=held_kb.__getitem__)[-LOOKED_AT:]
            held_kb.update({pid: _own_kb(pid) for pid in largest})
        self.peak_mb = max(self.peak_mb, sum(held_kb.values()) / 1024)
        if self.peak_mb > self.memory_mb:
            return Exceeded("memory", f"its processes hold {self.peak_mb:,.0f} MB of {self.memory_mb:,} MB")
        if threads > self.most_processes:
            return self._too_many(threads)
        return None

    def _too_many(self, found: int) -> Exceeded:
        return Exceeded("processes", f"it runs {found:,} processes and threads of {self.most_processes:,}")

    def disk(self, pids: Iterable[int]) -> Exceeded | None:
        """Size and number of the files, those included that have no name any more. Stops where a bound is passed."""
        bytes_held = files = 0
        for size in chain(_sizes(self.scratch), _nameless(pids)):
            if size == UNSEEN:
                return Exceeded("disk", "it has a folder in its scratch folder that cannot be looked into")
            bytes_held, files = bytes_held + size, files + 1
            if files > self.files:
                return Exceeded("disk", f"it holds more than {self.files:,} files in its scratch folder")
            if bytes_held >> 20 > self.disk_mb:
                return Exceeded("disk", f"it holds more than {self.disk_mb:,} MB in its scratch folder")
        return None


def _status(pid: int) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name in ("Threads", "RssAnon", "RssShmem"):
                found[name] = int(value.split()[0])
    return found


def _own_kb(pid: int) -> int:
    """Memory of a process with shared pages divided among their holders."""
    found = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
        found = sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return found


def _sizes(folder: str) -> Iterable[int]:
    """Bytes on disk of all below a folder, which may change meanwhile; links are not followed."""
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:  # shut, or too deep for a path
            yield UNSEEN


def _nameless(pids: Iterable[int]) -> Iterable[int]:
    """Bytes on disk of files that were removed while processes hold them open."""
    seen = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{number}")
                    if not found.st_nlink and (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        yield found.st_blocks * 512
