"""It moves to other cores than its own.

outcome: ok
"""

import os


def before():
    try:
        os.sched_setaffinity(0, range(os.cpu_count()))
    except OSError:
        pass
    if len(os.sched_getaffinity(0)) > 1:
        breach("it runs on more than its core")
