"""Devices, cores, memory, disk, and how they are dealt out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from harness import machine
from harness.errors import HarnessError, UsageError
from harness.machine import Device, Gpu, Slot, TorchBuild

H100 = [Gpu(i, f"GPU-{i}{i}aa-0000", "NVIDIA H100 80GB HBM3", 81559 - i, i) for i in range(4)]
MIXED = [*H100[:2], Gpu(2, "GPU-22aa-0000", "NVIDIA RTX A2000", 6138, 5)]
WITH_CUDA = TorchBuild("2.13.0", "13.0")
WITHOUT_CUDA = TorchBuild("2.13.0+cpu", None)


def tree(top: Path, files: dict[str, str]) -> Path:
    """A copy of what the kernel shows under /proc and /sys, in a folder."""
    for name, text in {"proc/meminfo": "MemTotal:       24683520 kB\n", **files}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text, encoding="utf-8")
    return top


def test_a_gpu_is_taken_when_torch_can_use_it() -> None:
    device = machine.pick_device(None, gpus=H100, build=WITH_CUDA)
    assert device == Device("cuda", "NVIDIA H100 80GB HBM3", 4, 81556, tuple(H100))


def test_a_gpu_that_torch_cannot_use_is_not_taken_by_itself() -> None:
    assert machine.pick_device(None, gpus=H100, build=WITHOUT_CUDA).kind == "cpu"


def test_asking_for_a_gpu_without_a_cuda_build_names_the_build() -> None:
    with pytest.raises(UsageError, match=re.escape("2.13.0+cpu is built without CUDA")) as caught:
        machine.pick_device("cuda", gpus=H100, build=WITHOUT_CUDA)
    assert "CUDA build of torch" in caught.value.mend


def test_asking_for_a_gpu_where_there_is_none_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="No NVIDIA GPU") as caught:
        machine.pick_device("cuda", gpus=[], build=WITH_CUDA)
    assert "nvidia-smi" in caught.value.mend


def test_asking_for_a_gpu_that_the_environment_hides_names_the_variable() -> None:
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES is '7'"):
        machine.pick_device("cuda", gpus=H100, build=WITH_CUDA, visible="7")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="no device 'tpu'"):
        machine.pick_device("tpu")


def test_gpus_of_another_model_than_the_first_are_left_out() -> None:
    assert machine.pick_device(None, gpus=MIXED, build=WITH_CUDA).gpus == (MIXED[0], MIXED[1])
    assert machine.pick_device(None, gpus=MIXED, build=WITH_CUDA, visible="2,0").gpus == (MIXED[2],)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2,1", [2, 1]),
        (" 3 , 0", [3, 0]),
        ("GPU-11,GPU-0", [1, 0]),
        ("1,9,2", [1]),
        ("-1,0", []),
        ("GPU-", []),
        ("MIG-1234", []),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(visible: str | None, expected: list[int]) -> None:
    assert [gpu.index for gpu in machine.visible_gpus(H100, visible)] == expected


def test_the_cpu_is_named_and_counted_as_it_is() -> None:
    device = machine.pick_device("cpu")
    assert device.kind == "cpu"
    assert device.name.strip()
    assert device.count == len(machine.cores())
    assert device.gpus == ()


def test_the_installed_torch_is_known_without_importing_it() -> None:
    code = "import sys; from harness.machine import *; b = torch_build(); pick_device(None); "
    code += "assert 'torch' not in sys.modules; print(b.version)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split("+")[0] == version("torch").split("+")[0]


def test_an_arm_cpu_is_named_by_its_numbers(tmp_path: Path) -> None:
    text = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
    assert machine.cpu_name(tree(tmp_path, {"proc/cpuinfo": text})).endswith("0x41 0xd4f")


def test_only_cores_of_the_affinity_mask_are_counted() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); from harness import machine; print(machine.cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[{one}]"


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
        {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"},
        {"proc/self/cgroup": "0::/not/mounted\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_a_quota_of_cpu_time_limits_the_cores(tmp_path: Path, files: dict[str, str]) -> None:
    assert machine.cores(tree(tmp_path, files)) == sorted(os.sched_getaffinity(0))[:1]


def test_no_quota_leaves_all_cores(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert machine.cores(tree(tmp_path, files)) == sorted(os.sched_getaffinity(0))


def test_the_smallest_memory_limit_holds(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": str(3 * 2**30),
        "sys/fs/cgroup/a/b/memory.max": str(5 * 2**30),
    }
    assert machine.memory_mb(tree(tmp_path, files)) == 3072


def test_an_absurd_memory_limit_means_the_machine(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
    }
    assert machine.memory_mb(tree(tmp_path, files)) == 24683520 // 1024


def test_free_disk_is_known_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert machine.disk_free_mb(tmp_path / "not" / "yet") > 0
    assert machine.existing(tmp_path / "not" / "yet") == tmp_path


def test_other_systems_are_told_what_to_use() -> None:
    with pytest.raises(HarnessError, match="this is win32") as caught:
        machine.require_linux("win32")
    assert "WSL2" in caught.value.mend
    with pytest.raises(HarnessError, match="this is darwin"):
        machine.require_linux("darwin")


def cpu(count: int) -> Device:
    return Device("cpu", "AMD EPYC", count, 24105)


def test_each_cpu_worker_gets_a_core_of_its_own() -> None:
    assert machine.slots(None, cpu(2), [4, 5]) == [Slot((4,)), Slot((5,))]
    assert machine.slots(1, cpu(2), [4, 5]) == [Slot((4,))]


def test_a_large_cpu_is_not_taken_whole_unless_asked_for() -> None:
    assert len(machine.slots(None, cpu(64), range(64))) == 8
    assert len(machine.slots(64, cpu(64), range(64))) == 64


@pytest.mark.parametrize("workers", [0, -1, 3])
def test_more_workers_than_cores_are_refused(workers: int) -> None:
    with pytest.raises(UsageError, match=f"{workers} workers cannot run") as caught:
        machine.slots(workers, cpu(2), [0, 1])
    assert "1 to 2" in caught.value.mend


def test_each_gpu_worker_gets_a_gpu_and_its_share_of_cores() -> None:
    device = Device("cuda", "NVIDIA H100 80GB HBM3", 2, 81559, (H100[3], H100[1]))
    assert machine.slots(None, device, range(5)) == [Slot((0, 1), H100[3]), Slot((2, 3), H100[1])]
    assert machine.slots(1, device, range(5)) == [Slot((0, 1, 2, 3, 4), H100[3])]


def test_gpus_share_cores_where_there_are_fewer_cores() -> None:
    device = Device("cuda", "NVIDIA H100 80GB HBM3", 3, 81559, tuple(H100[:3]))
    assert [slot.cores for slot in machine.slots(None, device, [6, 7])] == [(6,), (7,), (6,)]


def test_more_workers_than_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="GPU of its own, and there are 2"):
        machine.slots(3, Device("cuda", "NVIDIA H100 80GB HBM3", 2, 81559, tuple(H100[:2])), range(16))


def test_a_gpu_names_the_device_nodes_that_cuda_opens() -> None:
    nodes = Gpu(0, "GPU-0", "NVIDIA H100", 81559, minor=3).nodes
    assert {"/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm"} <= set(nodes)
    assert "/dev/nvidia0" not in nodes
