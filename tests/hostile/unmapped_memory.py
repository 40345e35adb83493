"""Memory that is no process's: anonymous files, written and not mapped, and segments of System V.

outcome: ok
"""

import ctypes
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
