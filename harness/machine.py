"""What this machine has: devices, cores, memory, disk; and which trial gets which of it.

A leaf: it imports no torch and starts no process, so asking takes milliseconds. All figures respect the
limits of the control group this process runs in, since a container shows the whole machine's /proc.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError

MOST_WORKERS = 8
"""Workers that a CPU gets when no number is asked for; more cores than this are used only when asked for."""
SHARED_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "dxg")
"""Of the NVIDIA driver, for all GPUs; `dxg` is what a GPU is behind in WSL2."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver names it."""

    index: int
    """In PCI bus order."""
    uuid: str
    name: str
    memory_mb: int
    minor: int
    """Number of its device node."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """What CUDA opens for this GPU; not all are on every machine."""
        return (f"/dev/nvidia{self.minor}", *(f"/dev/{name}" for name in SHARED_NODES))


@dataclass(frozen=True, slots=True)
class Device:
    """What trials run on. Scores compare only on one `name`, so all counted GPUs are of one model."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    """Model, as in `AMD EPYC` or `NVIDIA H100 80GB HBM3`."""
    count: int
    """GPUs of that model, or cores."""
    memory_mb: int
    """Of one GPU, or of the machine."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one trial runs."""

    cores: tuple[int, ...]
    """To be pinned to; on a CPU one core."""
    gpu: Gpu | None = None
    """None on a CPU."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """The installed torch, read from its files without importing it."""

    version: str
    cuda: str | None
    """CUDA version it was built for; None if it cannot use a GPU."""


def require_linux(system: str = sys.platform) -> None:
    """Raise `HarnessError` on any other system."""
    if system == "linux":
        return
    where = "On Windows, run it inside WSL2" if system.startswith(("win", "cygwin")) else "Use a Linux machine"
    raise HarnessError(
        f"The harness needs Linux, and this is {system}: it relies on /proc, memfd and seccomp.",
        f"{where}; on any system, a Linux container or virtual machine works too.",
    )


def pick_device(
    request: str | None,
    *,
    visible: str | None = None,
    gpus: Sequence[Gpu] | None = None,
    build: TorchBuild | None = None,
) -> Device:
    """The device to run on: `cpu`, `cuda`, or for None the GPU if there is one that torch can use.

    `visible` is the value of CUDA_VISIBLE_DEVICES, which the driver's library does not know of. `gpus` and
    `build` are asked of the machine unless given. Raises `UsageError` if `cuda` is asked for in vain.
    """
    require_linux()
    if request not in (None, "cpu", "cuda"):
        raise UsageError(f"There is no device {request!r}.", "Use cpu or cuda, or leave it out.")
    if request == "cpu":
        return _cpu()
    seen = visible_gpus(installed_gpus() if gpus is None else gpus, visible)
    build = build or torch_build()
    if seen and build and build.cuda:
        alike = [gpu for gpu in seen if gpu.name == seen[0].name]
        memory = min(gpu.memory_mb for gpu in alike)
        return Device("cuda", seen[0].name, len(alike), memory, tuple(alike))
    if request is None:
        return _cpu()
    raise _no_cuda(seen, build, visible)


def _no_cuda(seen: Sequence[Gpu], build: TorchBuild | None, visible: str | None) -> UsageError:
    if seen:
        installed = f"the installed torch {build.version} is built without CUDA" if build else "torch is missing"
        return UsageError(
            f"There is a GPU ({seen[0].name}), but {installed}.",
            "Install the CUDA build of torch, or ask for the device cpu.",
        )
    if visible is not None:
        return UsageError(
            f"No GPU can be used while CUDA_VISIBLE_DEVICES is {visible!r}.",
            "Unset it or name whole GPUs of this machine in it, or ask for the device cpu.",
        )
    return UsageError(
        "No NVIDIA GPU was found: its driver does not answer.",
        "See whether `nvidia-smi` lists one; in a container, start it with GPUs. Or ask for the device cpu.",
    )


def installed_gpus() -> list[Gpu]:
    """All GPUs the NVIDIA driver names, in PCI bus order; none if there is no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20
    minor = nvml.nvmlDeviceGetMinorNumber(handle)
    return Gpu(index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory, minor)


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those of `gpus` that CUDA_VISIBLE_DEVICES names, in its order.

    As in CUDA: numbers or beginnings of UUIDs, and an entry that names none hides all that follow.
    """
    if visible is None:
        return list(gpus)
    seen: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        by_uuid = entry.startswith("GPU-")
        named = [g for g in gpus if (g.uuid.startswith(entry) if by_uuid else entry == str(g.index))]
        if len(named) != 1 or named[0] in seen:
            break
        seen += named
    return seen


def torch_build() -> TorchBuild | None:
    """Version and CUDA version of the installed torch, from its `version.py`; None if torch is missing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found: dict[str, str | None] = {}
    for node in ast.parse(Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
            found[target.id] = value.value if isinstance(value.value, str) else None
    return TorchBuild(found.get("__version__") or "unknown", found.get("cuda"))


def _cpu() -> Device:
    return Device("cpu", cpu_name(), len(cores()), memory_mb())


def cpu_name(top: Path = Path("/")) -> str:
    """Model of the CPU; where /proc/cpuinfo has no name (ARM), its implementer and part numbers."""
    fields: dict[str, str] = {}
    for line in (top / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), " ".join(value.split()))
    if name := fields.get("model name"):
        return name
    parts = [fields[key] for key in ("CPU implementer", "CPU part") if key in fields]
    return " ".join([platform.machine(), *parts])


def cores(top: Path = Path("/")) -> list[int]:
    """Numbers of the cores this process may use, as many as its quota of CPU time covers; at least one."""
    allowed = sorted(os.sched_getaffinity(0))
    quotas = [*_quotas_v1(top), *_quotas_v2(top)]
    return allowed[: max(1, int(min(quotas)))] if quotas else allowed


def _quotas_v2(top: Path) -> Iterator[float]:
    for text in _limits(top, "", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit():
            yield int(quota) / int(period or 100_000)


def _quotas_v1(top: Path) -> Iterator[float]:
    for quota, period in zip(
        _limits(top, "cpu", "cpu.cfs_quota_us"), _limits(top, "cpu", "cpu.cfs_period_us"), strict=False
    ):
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def memory_mb(top: Path = Path("/")) -> int:
    """Memory this process and its children may use, in MiB: the machine's, or its control group's if less."""
    words = (top / "proc/meminfo").read_text(encoding="ascii").split()
    sizes = [int(words[words.index("MemTotal:") + 1]) * 1024]
    sizes += [int(text) for text in _limits(top, "", "memory.max") if text.isdigit()]
    sizes += [int(text) for text in _limits(top, "memory", "memory.limit_in_bytes") if text.isdigit()]
    return min(sizes) // 2**20


def _limits(top: Path, controller: str, name: str) -> Iterator[str]:
    """Contents of file `name` in our control group and each one above it; controller "" is cgroup v2's tree.

    In a container the path that /proc tells may not be mounted; what exists of it, and the top, is read.
    """
    try:
        groups = (top / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, names, path in (line.split(":", 2) for line in groups if line.count(":") >= 2):
        if controller not in names.split(","):
            continue
        mount = top / "sys/fs/cgroup" / names
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents) if group.parts else (group,):
            try:
                yield (mount / folder / name).read_text(encoding="ascii").strip()
            except OSError:
                continue


def disk_free_mb(path: Path) -> int:
    """Free space in MiB for files at `path`, which need not exist yet."""
    return shutil.disk_usage(existing(path)).free // 2**20


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def slots(workers: int | None, device: Device, available: Sequence[int] | None = None) -> list[Slot]:
    """One slot a worker: on a CPU a core of its own, otherwise a GPU of its own and a share of the cores.

    `workers` None: as many as there is room for, on a CPU at most 8. `available` are the cores to deal out,
    by default all. Raises `UsageError` for a number that there is no room for.
    """
    free = list(cores() if available is None else available)
    room, what = (len(device.gpus), "GPU") if device.kind == "cuda" else (len(free), "core")
    wanted = min(room, room if device.kind == "cuda" else MOST_WORKERS) if workers is None else workers
    if not 1 <= wanted <= room:
        raise UsageError(
            f"{wanted} workers cannot run here: each needs a {what} of its own, and there are {room}.",
            f"Use --workers with 1 to {room}, or leave it out.",
        )
    if device.kind == "cpu":
        return [Slot((core,)) for core in free[:wanted]]
    share = max(1, len(free) // wanted)
    return [Slot(_share(free, at, share), gpu) for at, gpu in enumerate(device.gpus[:wanted])]


def _share(free: Sequence[int], at: int, share: int) -> tuple[int, ...]:
    """The `at`-th run of `share` cores; from the start again where there are fewer cores than GPUs."""
    start = at * share % len(free)
    return tuple(free[start : start + share])
