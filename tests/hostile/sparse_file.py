"""A file of 1 TB that takes no room.

outcome: disk
reason: File too large
"""


def before():
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
