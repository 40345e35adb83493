"""A sandbox that was found to hold: what stands around each untrusted command of a run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.sandbox import bubblewrap, seccomp
from harness.sandbox.bounds import Bounds
from harness.sandbox.view import View

MEMORY_FOLDER_MB, ON_A_GPU = 256, 8192
"""Of /tmp and of /dev/shm, each; on a GPU workers hand over large batches there."""
NAMES = {3: "bubblewrap", 2: "Landlock and seccomp", 1: "processes of its own, as your user"}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One of the levels of docs/trust.md, on this machine."""

    level: int
    view: View
    bounds: Bounds
    program: str = ""
    """bubblewrap's, at level 3."""
    why: str = ""
    """Why it is no higher level."""

    def __str__(self) -> str:
        because = f"; not higher: {self.why}" if self.why else ""
        return f"level {self.level}: {NAMES[self.level]}{because}"

    def walls(self, scratch: Path, extra: Iterable[Path], devices: Sequence[str]) -> dict[str, Any]:
        """What the supervisor puts up around one command: the files of `extra` are shown to it as well."""
        view = self.view.with_files(extra)
        if self.level == 3:
            memory_mb = ON_A_GPU if devices else MEMORY_FOLDER_MB
            argv = bubblewrap.arguments(self.program, view, scratch, devices, memory_mb)
            return {"bwrap": argv, "filter": _filter(gpu=bool(devices))}
        if self.level == 2:
            pieces = view.pieces()
            return {**asdict(pieces), "devices": list(devices)}
        return {}


@functools.cache
def _filter(gpu: bool) -> str:
    """Of system calls, beside namespaces, in hexadecimal digits."""
    return seccomp.program(alone=False, gpu=gpu, own_signals=False).hex()
