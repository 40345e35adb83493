"""More memory than there is for it, in one process.

outcome: oom
reason: memory
"""


def before():
    kept = []
    while True:
        kept.append(torch.ones(64 << 20))
