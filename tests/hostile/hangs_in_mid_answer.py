"""The server never answers.

outcome: timeout
reason: scoring took longer than 15 s
limit: score 15
"""

import time


def answer(self, tokens, logits):
    time.sleep(600)
