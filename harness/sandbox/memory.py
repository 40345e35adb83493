"""Memory that is shared with a process under test: of fixed size, and sealed."""

from __future__ import annotations

import fcntl
import mmap
import os

FIXED = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
"""Nobody can change its size."""
READ_ONLY = FIXED | 0x0010
"""Also F_SEAL_FUTURE_WRITE of linux/fcntl.h, which Python 3.11 has no name for: only older mappings can write."""


def shared(name: str, size: int, seals: int) -> tuple[int, mmap.mmap]:
    """A memory file and our writable view of it, sealed for everybody else, against further seals too.

    A page costs memory once it is written. The caller closes the descriptor.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    view = mmap.mmap(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    return fd, view
