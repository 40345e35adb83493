"""The code under test speaks to the scorer itself, by the descriptors it finds.

outcome: bad_artifact
reason: protocol|shape|ended
"""

import os
import socket


def answer(self, tokens, logits):
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
            sock.sendall(b"AR-BPB-1" + bytes(200))
        except OSError:
            continue
    return logits
