"""How much of the machine an untrusted command may take: limits of the kernel's, and a watch over the whole tree.

Standard library only: it is part of the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one command, with all its processes."""

    memory_mb: int
    processes: int
    """Threads count, as they do for the kernel."""
    disk_mb: int
    """Of its scratch folder."""
    files: int

    def of_each(self, gpu: bool) -> dict[str, int]:
        """Limits of a single process, as names and values of `setrlimit`.

        Address space is never limited, since CUDA reserves all of it; on a GPU nor is private memory, which is
        mapped for the device's as well.
        """
        limits = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": self.disk_mb << 20, "RLIMIT_MSGQUEUE": 0}
        return limits if gpu else {**limits, "RLIMIT_DATA": self.memory_mb << 20}


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which bound was passed, and the figures in words."""

    what: str
    """`memory`, `processes` or `disk`."""
    figures: str


def set_limits(limits: Mapping[str, int]) -> None:
    """For this process and all that it starts; never above what it has."""
    for name, amount in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(which, (amount, amount))


@dataclass(slots=True)
class Watch:
    """Looks whether a tree of processes and its scratch folder keep to their bounds."""

    bounds: Bounds
    scratch: str
    peak_mb: float = 0.0

    def processes(self, pids: Iterable[int]) -> Exceeded | None:
        """Memory and number of the processes. Some 0.1 ms each."""
        pids = list(pids)
        if len(pids) > self.bounds.processes:
            return self._too_many(len(pids))
        threads, memory_kb = 0, 0
        for pid in pids:
            status = _status(pid)
            threads += status.get("Threads", 0)
            memory_kb += status.get("RssAnon", 0) + status.get("RssShmem", 0)
        if memory_kb >> 10 > self.bounds.memory_mb:  # pages that several share are counted for each: look closer
            memory_kb = sum(map(_own_kb, pids))
        self.peak_mb = max(self.peak_mb, memory_kb / 1024)
        if self.peak_mb > self.bounds.memory_mb:
            return Exceeded("memory", f"its processes hold {self.peak_mb:,.0f} MB of {self.bounds.memory_mb:,} MB")
        if threads > self.bounds.processes:
            return self._too_many(threads)
        return None

    def _too_many(self, found: int) -> Exceeded:
        return Exceeded("processes", f"it runs {found:,} processes and threads of {self.bounds.processes:,}")

    def disk(self) -> Exceeded | None:
        """Size and number of the files. Stops counting where a bound is passed."""
        bytes_held = files = 0
        for size in _sizes(self.scratch):
            bytes_held, files = bytes_held + size, files + 1
            if files > self.bounds.files:
                return Exceeded("disk", f"it holds more than {self.bounds.files:,} files in its scratch folder")
            if bytes_held >> 20 > self.bounds.disk_mb:
                return Exceeded("disk", f"it holds more than {self.bounds.disk_mb:,} MB in its scratch folder")
        return None


def _status(pid: int) -> dict[str, int]:
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in ("Threads", "RssAnon", "RssShmem"):
                found[name] = int(value.split()[0])
    return found


def _own_kb(pid: int) -> int:
    """Memory of a process with shared pages divided among their holders."""
    found = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                found += int(line.split()[1])
    return found


def _sizes(folder: str) -> Iterable[int]:
    """Bytes on disk of all below a folder, which may change meanwhile; links are not followed."""
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
