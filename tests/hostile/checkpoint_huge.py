"""A checkpoint of 10 GB.

outcome: disk
reason: File too large
"""


def save(model, config):
    with (OUT / "model.safetensors").open("wb") as file:
        file.truncate(10 << 30)
