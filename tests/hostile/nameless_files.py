"""Files that it removed and holds open: they take room and have no name.

outcome: disk
reason: more than 64 MB
"""

import os
import time


def before():
    held = []
    for number in range(20):
        held.append(os.open(f"file{number}", os.O_CREAT | os.O_RDWR))
        os.unlink(f"file{number}")
        os.write(held[-1], bytes(10 << 20))
    time.sleep(60)
