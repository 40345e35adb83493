"""No tensor at all.

outcome: bad_artifact
reason: no tensor of float32 or bfloat16
"""


def answer(self, tokens, logits):
    return {"loss": 0.0}
