"""Infinity for every token.

outcome: invalid
reason: not finite
"""


def answer(self, tokens, logits):
    return logits + float("inf")
