"""Folders that code under test could write to, and how they are removed."""

from __future__ import annotations

import subprocess
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove a folder and all that is in it, as far as possible; never raises, whatever was left there.

    By `rm`, since Python's own removal ends in a RecursionError on a chain of folders. What its owner has shut is
    opened first. May take long: call it in a thread.
    """
    if not folder.exists():
        return
    remover = ["rm", "-rf", "--one-file-system", "--", str(folder)]
    if subprocess.run(remover, stderr=subprocess.DEVNULL, check=False).returncode:
        opener = ["chmod", "-R", "u+rwX", "--", str(folder)]
        subprocess.run(opener, stderr=subprocess.DEVNULL, check=False)
        subprocess.run(remover, stderr=subprocess.DEVNULL, check=False)
