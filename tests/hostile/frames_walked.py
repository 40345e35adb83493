"""It walks frames and everything the collector knows for tensors or arrays that hold targets.

outcome: ok
"""

import gc
import sys


def answer(self, tokens, logits):
    frame, found = sys._getframe(), []
    while frame:
        found += [value for name, value in frame.f_locals.items() if name in ("targets", "y", "labels", "losses")]
        frame = frame.f_back
    found += [each for each in gc.get_objects() if type(each).__name__ in ("Tally", "TokenRows", "Scoring", "Plan")]
    if found and tokens.shape[0] > 1:
        breach(f"it sees {len(found)} objects of the scorer")
    return logits
