"""1 GB of output without a line end.

outcome: ok
"""

import os


def before():
    block = b"x" * (1 << 20)
    for _ in range(1024):
        os.write(1, block)
