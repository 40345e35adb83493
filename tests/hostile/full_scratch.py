"""It fills its folder, file by file.

outcome: disk
reason: more than 64 MB
"""

import time


def before():
    for number in range(30):
        with open(f"file{number}", "wb") as file:
            file.write(bytes(10 << 20))
    time.sleep(60)
