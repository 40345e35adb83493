"""Level 3: bubblewrap, which gives a command namespaces and a root of its own (github.com/containers/bubblewrap)."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.sandbox.view import View, inside

OPTIONS = ("--size", "--disable-userns", "--json-status-fd")
"""What is needed of it; 0.8 and later have all."""
INSTALL = "Install bubblewrap 0.8 or later: apt install bubblewrap, or dnf install bubblewrap."
EMPTY_BYTES = 1 << 16
"""Of a folder that is hidden, for the mount points in it."""


@functools.cache
def find(path: str | None) -> tuple[str, str]:
    """The program that a PATH leads to, and "", or "" and why there is none that will do."""
    program = shutil.which("bwrap", path=path)
    if program is None:
        return "", "bubblewrap is not installed"
    try:
        said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{program} cannot be run: {error}"
    missing = [option for option in OPTIONS if option not in said]
    return ("", f"{program} is too old: it has no {missing[0]}") if missing else (program, "")


def arguments(program: str, view: View, scratch: Path, devices: Sequence[str], memory_mb: int) -> list[str]:
    """The command line up to, and without, the command; descriptors for `--seccomp` and so on come before `--`.

    Only `scratch` can be written to that outlives the command; /tmp and /dev/shm take `memory_mb` each.
    """
    below_hidden = [path for path in view.read if inside(path, view.hidden)]
    empty, own = str(EMPTY_BYTES), str(memory_mb << 20)
    return [
        program,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--new-session", "--die-with-parent", "--hostname", "trial"),
        *("--size", own, "--tmpfs", "/tmp"),
        *_binds(path for path in view.read if path not in below_hidden),
        *(word for target, link in view.links for word in ("--symlink", target, link)),
        *(word for hidden in view.hidden for word in ("--size", empty, "--tmpfs", hidden)),
        *_binds(below_hidden),
        *(word for hidden in view.hidden for word in ("--remount-ro", hidden)),
        # Without capabilities root still owns the files of /proc/sys: core_pattern would be a way out.
        *("--proc", "/proc", "--remount-ro", "/proc"),
        *("--dev", "/dev", "--size", own, "--tmpfs", "/dev/shm"),
        *(word for node in devices for word in ("--dev-bind-try", node, node)),
        *("--bind", str(scratch), str(scratch)),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(scratch)),
    ]


def _binds(paths: Iterable[str]) -> list[str]:
    return [word for path in paths for word in ("--ro-bind", path, path)]
