"""It learns something else before it asks for its first batch: beyond a head start that is charged, and none is left.

outcome: crash
reason: 'x'
budget: cpu:1
"""

import time


def before():
    until = time.process_time() + 13
    while time.process_time() < until:
        pass
