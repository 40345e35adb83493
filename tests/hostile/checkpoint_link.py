"""Its checkpoint is a link to a file outside.

outcome: bad_artifact
reason: cannot be opened
"""


def save(model, config):
    save_checkpoint(model, config)
    (OUT / "config.json").unlink()
    (OUT / "config.json").symlink_to(WORLD["secret"])
