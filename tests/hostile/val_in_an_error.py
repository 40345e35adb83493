"""The text of val in an assertion, for whoever reads the log.

outcome: bad_artifact
reason: ^the model server ended while its model was asked$
"""


def answer(self, tokens, logits):
    raise AssertionError(f"LEAK {tokens.tolist()}")
