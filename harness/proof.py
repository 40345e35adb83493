"""What can be told of torch only by using it: tried in processes of their own, which leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

SECONDS = 300
"""For one try; a first compilation on a busy core takes some 50."""
OVER = 124
"""Exit status of `timeout` when the time was over."""

COMPUTE = """
import sys, time, torch
start = time.perf_counter()
x = torch.randn(512, 512, device=sys.argv[1], requires_grad=True)
(x @ x).square().mean().backward()
assert torch.isfinite(x.grad).all()
print(f"torch {torch.__version__} computes on {sys.argv[1]} ({time.perf_counter() - start:.2f} s)")
"""

COMPILE = """
import sys, time, torch
start = time.perf_counter()
x = torch.randn(64, 64, device=sys.argv[1], requires_grad=True)
try:
    torch.compile(lambda x: (x.sin() * x).square().mean(), dynamic=False, fullgraph=True)(x).backward()
except Exception as error:  # what compilers raise has no common base
    sys.exit(" ".join(str(error).partition("Set TORCHDYNAMO")[0].split())[:300])
assert torch.isfinite(x.grad).all()
print(f"torch.compile works on {sys.argv[1]}, backward too ({time.perf_counter() - start:.1f} s)")
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of a try."""

    worked: bool
    said: str
    """Its output, or the last line of its error."""


def computes(device: str, environ: Mapping[str, str]) -> Proof:
    """Multiply matrices on `cpu` or `cuda`, and go back through it."""
    return _try(COMPUTE, device, environ)


def compiles(device: str, environ: Mapping[str, str]) -> Proof:
    """Have torch.compile build a small function and its backward from nothing, as every trial on a GPU does.

    It needs a C compiler and Python's headers. What was compiled in the past is not used: it would hide that they
    are gone.
    """
    with tempfile.TemporaryDirectory() as caches:
        fresh = {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", "TRITON_CACHE_DIR": f"{caches}/triton"}
        return _try(COMPILE, device, {**environ, **fresh, "TORCHINDUCTOR_COMPILE_THREADS": "1"})


def _try(code: str, device: str, environ: Mapping[str, str]) -> Proof:
    # `timeout` ends the compilers under it too; they would hold our pipe.
    command = ["timeout", str(SECONDS), sys.executable, "-P", "-c", code, device]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Proof(True, done.stdout)
    if done.returncode == OVER:
        return Proof(False, f"no end in {SECONDS} s")
    return Proof(False, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
