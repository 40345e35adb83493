"""It closes its socket to the feeder, and goes on.

outcome: timeout
reason: after it knew
budget: cpu:1
"""

import time

import prepare


def after(model, x, y):
    prepare.feed()._feeder.close()
    until = time.process_time() + 4
    while time.process_time() < until:
        pass
