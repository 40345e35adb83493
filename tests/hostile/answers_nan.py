"""NaN for one token.

outcome: invalid
reason: not finite
"""


def answer(self, tokens, logits):
    return logits.index_fill(1, torch.tensor([5]), float("nan"))
