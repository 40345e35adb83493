"""100,000 files of no size.

outcome: disk
reason: more than 2,000 files
"""

import time


def before():
    for number in range(100_000):
        open(f"file{number}", "w").close()
    time.sleep(60)
