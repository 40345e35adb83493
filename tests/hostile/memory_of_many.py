"""More memory than there is for it, divided among processes that keep to the limit of one.

outcome: oom
reason: of 4,096 MB
"""

import os
import time


def before():
    for _ in range(10):
        if os.fork() == 0:
            kept = bytearray(b"x") * (600 << 20)
            time.sleep(60 + len(kept) % 2)
    time.sleep(60)
