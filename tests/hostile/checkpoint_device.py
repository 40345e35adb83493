"""Its checkpoint is a link to a device that never ends.

outcome: bad_artifact
reason: cannot be opened
"""


def save(model, config):
    save_checkpoint(model, config)
    (OUT / "model.safetensors").unlink()
    (OUT / "model.safetensors").symlink_to("/dev/zero")
