"""It writes where git, the ledger, the harness and the libraries are.

outcome: ok
"""

import os
from pathlib import Path


def before():
    places = [WORLD["secret"], WORLD["ledger"], WORLD["checkout"] + "/prepare.py"]
    places += [WORLD["checkout"] + "/.git/hooks/post-commit", torch.__file__, os.__file__]
    places += ["/proc/sys/kernel/core_pattern", "/etc/ld.so.preload", "/usr/lib/planted.so", "/dev/planted"]
    for place in places:
        for act in (lambda p: Path(p).write_text("planted"), os.unlink, lambda p: os.chmod(p, 0o777)):
            try:
                act(place)
            except OSError:
                continue
            breach(f"it changed {place}")
