"""It looks for the shards of val: by path, from the root upwards, by a link, by other processes, by descriptors.

outcome: ok
"""

import os


def before():
    shards, harness = WORLD["shards"], WORLD["harness"]
    os.symlink(shards, "link")
    ways = [shards, "../" * 30 + shards, "link", f"/proc/self/root{shards}", f"/proc/1/root{shards}"]
    ways += [f"/proc/{harness}/root{shards}", f"/proc/{harness}/cwd", f"/proc/{harness}/fd"]
    for way in ways:
        try:
            found = os.listdir(way)
        except OSError:
            continue
        breach(f"it sees {found} in {way}")
    try:
        open(f"{shards}/val/00000.bin", "rb").close()
    except OSError:
        pass
    else:
        breach("it can open a shard")
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.endswith(".bin") or shards in target:
            breach(f"it holds {target}")
