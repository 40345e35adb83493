"""Folders so deep that no path leads there, for files that nobody can count.

outcome: disk
reason: cannot be looked into
"""

import os
import time


def before():
    for _ in range(50):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    with open("file", "wb") as file:
        file.write(bytes(32 << 20))
    time.sleep(60)
