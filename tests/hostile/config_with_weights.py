"""Weights in its config, which is no place for them.

outcome: bad_artifact
reason: config.json
"""


def save(model, config):
    save_checkpoint(model, {**config, "hidden": "x" * 200_000})
