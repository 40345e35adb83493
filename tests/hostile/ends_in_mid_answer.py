"""The server ends when it is asked.

outcome: bad_artifact
reason: the model server ended while its model was asked$
"""

import os


def answer(self, tokens, logits):
    os._exit(0)
