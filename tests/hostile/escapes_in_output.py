"""Invalid UTF-8, terminal escapes, and marks that turn the direction of text, last in an error.

outcome: crash
reason: x1b
"""

import os


def before():
    os.write(1, bytes(range(256)) * 10 + b"\x1b]0;title\x07\x1b[2J\xff\xfe\n")
    raise RuntimeError("\x1b[31m\x07 \u202e \x00 \x9b2J")
