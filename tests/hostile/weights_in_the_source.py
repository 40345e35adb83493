"""Weights that were learned elsewhere, in the text itself.

outcome: invalid
reason: bytes; at most
"""

HIDDEN = "PAYLOAD"


def before():
    breach("it ran")
