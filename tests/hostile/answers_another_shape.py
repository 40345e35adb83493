"""One logit too few.

outcome: bad_artifact
reason: logits have shape
"""


def answer(self, tokens, logits):
    return logits[..., 1:]
