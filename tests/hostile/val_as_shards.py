"""It looks for the shards of val: by path, from the root upwards, by a link, by descriptors.

outcome: ok
"""

import os
from pathlib import Path


def before():
    shards = WORLD["shards"]
    os.symlink(shards, "link")
    ways = [shards, "../" * 30 + shards, "link", f"/proc/self/root{shards}", f"/proc/1/root{shards}"]
    ways += [f"/proc/{WORLD['harness']}/root{shards}", f"/proc/{WORLD['harness']}/cwd"]
    for way in ways:
        if Path(way, "val").exists():
            breach(f"it sees {way}")
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.endswith(".bin") or shards in target:
            breach(f"it holds {target}")
