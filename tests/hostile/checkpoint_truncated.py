"""The first half of a checkpoint.

outcome: bad_artifact
reason: header
"""


def save(model, config):
    save_checkpoint(model, config)
    path = OUT / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
