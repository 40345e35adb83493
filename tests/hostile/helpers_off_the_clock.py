"""Helpers that compute beside it, and are left to nobody: their time counts.

outcome: timeout
reason: after it knew
budget: cpu:1
"""

import os
import signal
import time


def after(model, x, y):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        until = time.process_time() + 4
        while time.process_time() < until:
            pass
        open("done", "w").close()
        os._exit(0)
    while not os.path.exists("done"):
        time.sleep(0.05)
