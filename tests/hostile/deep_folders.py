"""A chain of folders, too deep for a path, which must be removed afterwards.

outcome: ok
"""

import os


def after(model, x, y):
    here = os.open(".", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", 0o700)
        os.chdir("d")
    os.fchdir(here)
