"""How much of the machine an untrusted command may take."""

from __future__ import annotations

from dataclasses import dataclass


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
        # What lies in the buffers of pipes and sockets belongs to no process: few of them hold little.
        return limits if gpu else {**limits, "RLIMIT_DATA": self.memory_mb << 20, "RLIMIT_NOFILE": 512}
