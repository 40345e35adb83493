"""It never asks for a batch.

outcome: timeout
reason: no batch within 6 s
limit: start 6
"""


def before():
    while True:
        pass
