"""Helpers that live for a moment each, and whose parents end before them: nobody of the trainer's waits for them.

outcome: timeout
reason: after it knew
budget: cpu:1
"""

import os
import time


def after(model, x, y):
    until = time.monotonic() + 5
    while time.monotonic() < until:
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                end = time.process_time() + 0.02
                while time.process_time() < end:
                    pass
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.02)
