"""Tries from inside a sandbox what code under test could try, and says what it could do.

Run as a script with one JSON argument (`levels.Bait`): what lies outside to be read, changed, reached, signalled.
Standard library only; it prints one JSON object, for each promise "" if it was kept, else how it was broken. What
cannot be told from inside (a datagram that arrived, a process that died) the harness looks for outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PTRACE_ATTACH, CLONE_NEWUSER, CLONE_NEWNS, MS_REMOUNT, MS_BIND = 16, 0x10000000, 0x00020000, 32, 4096
FREE_MEMORY = 1 << 30
"""Bytes of a memory file system from which it is a hoard."""
libc = ctypes.CDLL(None, use_errno=True)


def works(bait: dict[str, Any]) -> str:
    """What a trainer needs: its folder, child processes, /proc, threads, and its device."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(b"x")
    if subprocess.run([sys.executable, "-S", "-c", "print(1)"], capture_output=True, check=False).stdout != b"1\n":
        return "it cannot start a process"
    Path("/proc/cpuinfo").read_text()
    Path("/proc/self/status").read_text()
    os.urandom(8)
    with open(os.devnull, "wb") as nowhere:
        nowhere.write(b"x")
    if bait["cuda"]:
        driver = ctypes.CDLL("libcuda.so.1")
        if code := driver.cuInit(0):
            return f"cuInit fails with {code}"
    return ""


def reads_nothing_outside(bait: dict[str, Any]) -> str:
    """By path, through a link of its own, by the folders of other processes, and by walking up."""
    secret, link = bait["secret"], "a-link"
    os.symlink(secret, link)
    pids = ("1", str(bait["canary"]), str(os.getppid()))
    ways = [secret, link, "/".join([*[".."] * 30, secret]), *(f"/proc/{pid}/root{secret}" for pid in pids)]
    ways += [str(Path(home) / ".bashrc") for home in bait["homes"]]
    for way in ways:
        with contextlib.suppress(OSError):
            Path(way).read_bytes()
            return f"it can read {way}"
    os.unlink(link)
    return ""


def changes_nothing_outside(bait: dict[str, Any]) -> str:
    """Files by all the calls that change one, the system's own folders, and the kernel's settings."""
    secret, folder = bait["secret"], os.path.dirname(bait["secret"])
    Path("mine").write_text("x")
    attempts: dict[str, Callable[[], object]] = {
        "write": lambda: Path(secret).write_text("broken"),
        "create a file": lambda: Path(folder, "new").write_text("broken"),
        "make a folder": lambda: os.mkdir(os.path.join(folder, "new-folder")),
        "remove": lambda: os.unlink(secret),
        "rename into": lambda: os.rename("mine", os.path.join(folder, "moved")),
        "link into": lambda: os.link("mine", os.path.join(folder, "linked")),
        "truncate": lambda: os.truncate(secret, 0),
        "change the mode of": lambda: os.chmod(secret, 0o777),
        "change the owner of": lambda: os.chown(secret, os.getuid(), os.getgid()),
        "change the times of": lambda: os.utime(secret, (0, 0)),
        "write to /usr/lib": lambda: Path("/usr/lib/broken").write_text("x"),
        "write to the libraries": lambda: Path(os.path.dirname(os.__file__), "broken.py").write_text("x"),
        "open /proc/sys/kernel/core_pattern to write": lambda: os.close(
            os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
        ),
        "open /proc/1/mem to write": lambda: os.close(os.open("/proc/1/mem", os.O_WRONLY)),
        "open /proc/sysrq-trigger to write": lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY)),
    }
    for name, attempt in attempts.items():
        with contextlib.suppress(OSError):
            attempt()
            return f"it can {name}{'' if '/' in name else ' a file outside'}"
    return ""


def reaches_no_network(bait: dict[str, Any]) -> str:
    """A listener of the harness by TCP, UDP and Unix sockets, abstract and in the file system."""
    inet, unix = socket.AF_INET, socket.AF_UNIX
    kinds: dict[str, tuple[int, int, Any]] = {
        "TCP": (inet, socket.SOCK_STREAM, ("127.0.0.1", bait["tcp"])),
        "an abstract socket": (unix, socket.SOCK_STREAM, "\0" + bait["abstract"]),
        "a socket's path": (unix, socket.SOCK_STREAM, os.path.basename(bait["socket"])),
    }
    here = os.open(".", os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.chdir(os.path.dirname(bait["socket"]))  # the address of a socket must be short
    for name, (family, kind, address) in kinds.items():
        with contextlib.suppress(OSError), socket.socket(family, kind) as sock:
            sock.settimeout(1)
            sock.connect(address)
            return f"it can connect by {name}"
    os.fchdir(here)
    os.close(here)
    with contextlib.suppress(OSError), socket.socket(inet, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"out", ("127.0.0.1", bait["udp"]))  # whether it arrives is seen outside
    return ""


def signals_nobody(bait: dict[str, Any]) -> str:
    """Whether the canary lives is seen outside: inside its number may be another's, or nobody's."""
    for pid in (bait["canary"], bait["harness"]):
        if pid not in _own():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL if pid == bait["canary"] else 0)
                return f"it can signal process {pid} outside"
    return ""


def spies_on_nobody(bait: dict[str, Any]) -> str:
    """Environment and memory of the canary, which holds a secret in both."""
    canary = bait["canary"]
    if canary in _own():
        return ""
    for name in ("environ", "mem", "maps"):
        with contextlib.suppress(OSError), open(f"/proc/{canary}/{name}", "rb") as file:
            file.read(1)
            return f"it can read /proc/{canary}/{name}"
    if libc.ptrace(PTRACE_ATTACH, canary, 0, 0) == 0:
        return "it can trace a process outside"
    return ""


def gains_no_right(bait: dict[str, Any]) -> str:
    """No capability, no way to get one, no mount, no namespace."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    # An ordinary user cannot empty the bounding set, and gains nothing by it without new privileges.
    for name in ("CapEff", "CapPrm", "CapAmb", *(["CapBnd"] if os.getuid() == 0 else [])):
        if int(status[name], 16):
            return f"{name} is {status[name]}"
    if status["NoNewPrivs"] != "1":
        return "it can gain privileges by a program"
    if status["Seccomp"] != "2":
        return "no filter of system calls is in force"
    for flag in (CLONE_NEWUSER, CLONE_NEWNS):
        if libc.unshare(flag) == 0:
            return "it can make a namespace"
    for path, flags in ((b"/", MS_REMOUNT | MS_BIND), (b"/tmp", 0)):
        if libc.mount(b"none", path, b"tmpfs", flags, None) == 0:
            return f"it can mount on {path.decode()}"
    if libc.umount2(b"/proc", 2) == 0:
        return "it can unmount"
    return ""


def sees_nobody(bait: dict[str, Any]) -> str:
    """Other processes than its own, in /proc."""
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    return f"it sees {len(seen)} processes" if len(seen) > 8 else ""


def hoards_no_memory(bait: dict[str, Any]) -> str:
    """File systems that lie in memory, which no limit of a process counts."""
    for folder in ("/dev/shm", "/tmp", "/dev", "/"):
        with contextlib.suppress(OSError):
            hoard = Path(folder, "hoard")
            hoard.write_text("x")
            hoard.unlink()
            found = os.statvfs(folder)
            if found.f_frsize * found.f_bavail > FREE_MEMORY:
                return f"it can write {found.f_frsize * found.f_bavail >> 20} MB to {folder}"
    return ""


def _own() -> set[int]:
    return {os.getpid(), os.getppid(), 1} if os.getppid() < 4 else {os.getpid()}


PROMISES: dict[str, Callable[[dict[str, Any]], str]] = {
    "works": works,
    "reads nothing outside": reads_nothing_outside,
    "changes nothing outside": changes_nothing_outside,
    "reaches no network": reaches_no_network,
    "signals nobody": signals_nobody,
    "spies on nobody": spies_on_nobody,
    "gains no right": gains_no_right,
    "sees nobody": sees_nobody,
    "hoards no memory": hoards_no_memory,
}


def main() -> None:
    """Each promise in turn; one that raises is a broken one."""
    bait = json.loads(sys.argv[1])
    found = {}
    for name, promise in PROMISES.items():
        try:
            found[name] = promise(bait)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
