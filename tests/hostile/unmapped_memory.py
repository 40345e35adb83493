"""Memory that is no process's: anonymous files, written and not mapped,
segments of System V, and shared pages that were given back by who wrote them.

outcome: ok
"""

import ctypes
import mmap
import os


def before():
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        os.memfd_create("hoard")
    except OSError:
        pass
    else:
        breach("it can make anonymous files, which nobody counts")
    if libc.shmget(0, 1 << 28, 0o600) >= 0:
        breach("it can make segments of System V, which nobody counts")
    try:
        mmap.mmap(-1, 1 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    except OSError:
        pass
    else:
        breach("it can share pages that nobody counts")
