"""It changes the prepare.py and the train.py that lie in its own folder, and leaves others beside its checkpoint.

outcome: ok
"""

from pathlib import Path


def after(model, x, y):
    cheat = "CONTEXT = VOCAB_SIZE = 1\n"
    for name in ("prepare.py", "train.py", "wire.py", "server.py", "numpy.py"):
        for folder in (Path.cwd(), OUT):
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(cheat)
