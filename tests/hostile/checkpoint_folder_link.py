"""The folder of its checkpoint is a link to a folder of the machine that has files of these names.

outcome: invalid
reason: without a checkpoint
"""

import os


def save(model, config):
    os.rename(OUT, "elsewhere")
    os.symlink(os.path.dirname(WORLD["secret"]), OUT)
