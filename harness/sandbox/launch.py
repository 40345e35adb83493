"""From a fork to the first instruction of an untrusted command: everything that is put around it on the way.

Part of the supervisor, which must start quickly: what a level needs is imported at that level alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence

from harness.sandbox.watch import set_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_PDEATHSIG = 1
LAST_TO_LIVE = 1000
"""As an OOM score: where memory runs out, the kernel ends the command before anybody else."""
BWRAP_SIGNALS = range(129, 129 + 64)
"""Exit codes with which bubblewrap says that the command died of a signal."""
PACKAGES = ".packages"
NODES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
FACTS = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/sys/vm", "/proc/self"),
    *("/proc/devices", "/proc/driver/nvidia", "/proc/driver/nvidia-uvm"),
)
"""What a command may read of /proc where it has none of its own."""
THREADS = "/proc/self/task"
"""Where CUDA's driver names its threads."""


class Status:
    """What bubblewrap says of the command, on a pipe of its own: its exit code could be bubblewrap's as well."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.said = b""

    def exit_code(self) -> int | None:
        """Of the command; None if it was never started or its end was not seen."""
        os.set_blocking(self.fd, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 4096):
                self.said += data
        _, found, number = self.said.partition(b'"exit-code":')
        if not found:
            return None
        code = int(number.split(b"}")[0].split(b",")[0])
        return 128 - code if code in BWRAP_SIGNALS else code


def start(spec: dict[str, Any], output: int) -> tuple[int, Status | None]:
    """Fork, put up the walls and execute the command in a session of its own; its pid, and bubblewrap's word."""
    argv, kept, status = spec["argv"], list(spec["fds"]), None
    if spec["level"] == 3:
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        filters = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        os.write(filters, bytes.fromhex(spec["walls"]["filter"]))
        os.lseek(filters, 0, os.SEEK_SET)
        told = ["--seccomp", str(filters), "--json-status-fd", str(status_write)]
        argv, status = [*spec["walls"]["bwrap"], *told, "--", *argv], Status(status_read)
        kept += [filters, status_write]
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        execute(spec, argv, kept, output, supervisor)
    if status is not None:
        os.close(status_write)
        os.close(filters)
    return pid, status


def execute(spec: dict[str, Any], argv: list[str], kept: Sequence[int], output: int, supervisor: int) -> None:
    """In the child: everything from the fork to the command's first instruction. Never returns."""
    try:
        # Dies with the supervisor, should that be killed; its own children do not, which a sandbox must see to.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(127)
        os.setsid()
        os.chdir(spec["cwd"])
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for fd in kept:
            os.set_inheritable(fd, True)
        if spec["cores"]:
            os.sched_setaffinity(0, spec["cores"])
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(LAST_TO_LIVE))
        set_limits(spec["limits"])
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if spec["level"] == 2:
            link_packages(spec["walls"]["packages"], spec["env"])
            enclose(spec["walls"], bool(spec["devices"]))
        os.execve(argv[0], argv, spec["env"])
    except BaseException as error:
        os.write(2, f"cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def link_packages(packages: Mapping[str, str], env: dict[str, str]) -> None:
    """Level 2: a folder of links in the scratch folder, for Python to find distributions by."""
    folder = os.path.abspath(PACKAGES)
    for name, path in packages.items():
        link = os.path.join(folder, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(path, link)
    env["PYTHONPATH"] = folder


def enclose(walls: dict[str, Any], gpu: bool) -> None:
    """Level 2, on this very process and all that it will start: rights, files, system calls, in this order."""
    from harness.sandbox import landlock, privileges, seccomp

    version = landlock.abi()
    present = [path for path in (*walls["read"], *FACTS) if os.path.exists(path)]
    nodes = [path for path in (*NODES, *walls["devices"]) if os.path.exists(path)] + [THREADS] * gpu
    rules = [landlock.Rule(path, landlock.Rights.READ) for path in present]
    rules += [landlock.Rule(path, landlock.Rights.LIST) for path in walls["listed"]]
    rules += [landlock.Rule(os.getcwd(), landlock.Rights.WRITE)]
    rules += [landlock.Rule(path, landlock.Rights.DEVICE) for path in nodes]
    privileges.drop()
    landlock.restrict(rules, version)
    own_signals = version < landlock.SCOPES_SIGNALS
    seccomp.install(seccomp.program(alone=True, gpu=gpu, own_signals=own_signals, pid=os.getpid()))
