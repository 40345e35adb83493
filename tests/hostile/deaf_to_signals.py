"""It ignores every signal that can be ignored, and stays after its work is done.

outcome: timeout
reason: did not end within 2 s
limit: save 2
"""

import signal
import time


def at_last():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)
