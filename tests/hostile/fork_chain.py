"""A process that dies as soon as it has had a child, and so on: never twice the same number to kill.

outcome: ok
"""

import os
import time


def at_last():
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(0.002)
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                pass
