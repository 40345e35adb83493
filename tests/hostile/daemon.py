"""A daemon that detached itself twice, is deaf, and holds the output open.

outcome: ok
"""

import os
import signal
import time


def before():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
        os._exit(0)
