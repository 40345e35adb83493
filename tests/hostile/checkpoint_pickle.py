"""A pickle, which would run code where it is loaded.

outcome: bad_artifact
reason: model.safetensors
"""

import os


class Runs:
    def __reduce__(self):
        return os.system, ("touch " + WORLD["secret"],)


def save(model, config):
    save_checkpoint(model, config)
    torch.save({"weights": Runs()}, OUT / "model.safetensors")
