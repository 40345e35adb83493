"""It saves batches with its weights, and trains on them where its model is built, as it would be scored.

outcome: timeout
reason: took its servers
budget: cpu:1
"""

import time

KEPT = []


def during(step):
    KEPT.append(step)


def building(config):
    until = time.process_time() + 5
    while time.process_time() < until and __name__ == "train":
        pass
