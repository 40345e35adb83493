"""Its checkpoint is a FIFO, which would hang who opens it.

outcome: bad_artifact
reason: no regular file
"""

import os


def save(model, config):
    save_checkpoint(model, config)
    (OUT / "model.safetensors").unlink()
    os.mkfifo(OUT / "model.safetensors")
