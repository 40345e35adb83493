"""It goes on training, after its budget is spent, on batches that it kept.

outcome: timeout
reason: after it knew
budget: cpu:1
"""

import time


def after(model, x, y):
    until = time.process_time() + 4
    while time.process_time() < until:
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
