"""Helpers that live for a moment each, waited for by nobody, so that the kernel forgets what they used.

outcome: timeout
reason: after it knew
budget: cpu:1
"""

import os
import signal
import time


def after(model, x, y):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        pid = os.fork()
        if pid == 0:
            end = time.process_time() + 0.01
            while time.process_time() < end:
                pass
            os._exit(0)
        try:
            while True:
                os.kill(pid, 0)
                time.sleep(0.001)
        except OSError:
            pass
