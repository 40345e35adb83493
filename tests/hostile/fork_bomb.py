"""It forks, and each child forks.

outcome: crash
reason: processes and threads of 40
"""

import os


def before():
    while True:
        try:
            os.fork()
        except OSError:
            pass
