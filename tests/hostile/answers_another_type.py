"""Double precision, which the protocol does not have.

outcome: bad_artifact
reason: no tensor of float32 or bfloat16
"""


def answer(self, tokens, logits):
    return logits.double()
