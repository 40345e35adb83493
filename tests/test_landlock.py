"""Landlock, and the rights that are dropped before it: each in a process that is confined and then tries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.sandbox import landlock
from harness.sandbox.landlock import KNOWS_DEVICES, KNOWS_TCP, OLDEST, SCOPES_SIGNALS, Rights

ROOT = Path(__file__).parents[1]
HERE = landlock.abi()
VERSIONS = range(1, HERE + 1)
needs_landlock = pytest.mark.skipif(HERE < OLDEST, reason=f"this kernel has Landlock ABI {HERE}")

CONFINED = """
import ctypes, errno, json, os, shutil, signal, socket, subprocess, sys
from pathlib import Path
from harness.sandbox import landlock, privileges
from harness.sandbox.landlock import Rights, Rule
spec = json.loads(sys.argv[1])
inside, outside, shown, parent = Path(spec["inside"]), Path(spec["outside"]), Path(spec["shown"]), os.getppid()
rules = [Rule(path, Rights.READ) for path in (*spec["system"], str(shown))]
rules += [Rule(path, Rights.LIST) for path in spec.get("listed", [])]
rules += [Rule(str(inside), Rights.WRITE), Rule("/dev/null", Rights.DEVICE)]
privileges.drop()
landlock.restrict(rules, spec["version"])
try:
    {code}
    print("ok")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
SYSTEM = [path for path in ("/usr", "/lib", "/lib64", "/bin", sys.base_prefix, sys.prefix) if os.path.exists(path)]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """One to work in, one that is shown and one that is not, each with a file."""
    for name in ("inside", "outside", "shown"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return {name: str(tmp_path / name) for name in ("inside", "outside", "shown")}


def confined(folders: Mapping[str, object], code: str, version: int = HERE) -> str:
    """`ok`, or the error's name, of Python code in a process that is confined; it may print before."""
    script = CONFINED.replace("{code}", code.replace("\n", "\n    "))
    spec = json.dumps({**folders, "version": version, "system": SYSTEM})
    return child(script, spec)


def child(script: str, *arguments: str) -> str:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-S", "-c", script, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ALLOWED = {
    "read its own file": "(inside / 'file').read_text()",
    "write its own file": "(inside / 'file').write_text('x')",
    "truncate its own file": "os.truncate(inside / 'file', 0)",
    "make and remove a folder": "(inside / 'new').mkdir()\n(inside / 'new').rmdir()",
    "move between its folders": "(inside / 'new').mkdir()\n(inside / 'file').rename(inside / 'new/file')",
    "link": "os.symlink('file', inside / 'link')\nos.link(inside / 'file', inside / 'other')",
    "execute its own program": "shutil.copyfile('/bin/true', inside / 'true')\nos.chmod(inside / 'true', 0o700)\n"
    "subprocess.check_call([inside / 'true'])",
    "read what is shown": "(shown / 'file').read_text()\nos.listdir(shown)",
    "execute what is shown": "subprocess.check_call(['true'])",
    "use a device": "Path('/dev/null').write_text('x')\nPath('/dev/null').read_text()",
    "signal its children": "child = subprocess.Popen(['sleep', '60'])\nchild.kill()\nchild.wait()",
    "use a pipe and a pair": "os.pipe()\none, other = socket.socketpair()\none.send(b'x')\nother.recv(1)",
}
REFUSED = {
    "read outside": "(outside / 'file').read_text()",
    "list outside": "os.listdir(outside)",
    "list the root": "os.listdir('/')",
    "read outside by a link": "(inside / 'link').symlink_to(outside / 'file')\n(inside / 'link').read_text()",
    "read outside upwards": "(inside / '../outside/file').read_text()",
    "read the parent's environment": "Path(f'/proc/{parent}/environ').read_bytes()",
    "write outside": "(outside / 'file').write_text('x')",
    "append outside": "os.open(outside / 'file', os.O_WRONLY | os.O_APPEND)",
    "truncate outside": "os.truncate(outside / 'file', 0)",
    "make a file outside": "(outside / 'new').write_text('x')",
    "make a folder outside": "(outside / 'new').mkdir()",
    "make a link outside": "(outside / 'new').symlink_to('file')",
    "make a FIFO outside": "os.mkfifo(outside / 'new')",
    "remove outside": "(outside / 'file').unlink()",
    "execute outside": "subprocess.check_call([outside / 'file'])",
    "write what is shown": "(shown / 'file').write_text('x')",
    "truncate what is shown": "os.truncate(shown / 'file', 0)",
    "make a file where it is shown": "(shown / 'new').write_text('x')",
    "remove what is shown": "(shown / 'file').unlink()",
    "use another device": "Path('/dev/zero').open('rb')",
    "make a device": "os.mknod(inside / 'new', 0o600 | 0o020000, os.makedev(1, 5))",
}
ACROSS = {
    "move a file out": "(inside / 'file').rename(outside / 'new')",
    "move a file in": "(outside / 'file').rename(inside / 'new')",
    "link a file in": "os.link(outside / 'file', inside / 'new')",
    "link what is shown where it can be written": "os.link(shown / 'file', inside / 'new')",
}


def contents(folders: dict[str, str]) -> dict[str, str]:
    """What lies where nothing may change."""
    return {str(path): path.read_text() for name in ("outside", "shown") for path in Path(folders[name]).iterdir()}


@needs_landlock
@pytest.mark.parametrize("what", ALLOWED)
def test_a_confined_process_can(folders: dict[str, str], what: str) -> None:
    assert confined(folders, ALLOWED[what]) == "ok"


@needs_landlock
@pytest.mark.parametrize("what", REFUSED)
def test_a_confined_process_cannot(folders: dict[str, str], what: str) -> None:
    before = contents(folders)
    assert confined(folders, REFUSED[what]) in ("EACCES", "EPERM")
    assert contents(folders) == before


@needs_landlock
@pytest.mark.parametrize("what", ACROSS)
def test_nothing_moves_over_the_border(folders: dict[str, str], what: str) -> None:
    before = contents(folders)
    assert confined(folders, ACROSS[what]) in ("EACCES", "EXDEV")
    assert contents(folders) == before


@needs_landlock
def test_what_it_starts_is_as_confined(folders: dict[str, str]) -> None:
    assert (
        confined(folders, "print(subprocess.run(['cat', outside / 'file'], stderr=subprocess.DEVNULL).returncode)")
        == "1\nok"
    )


@needs_landlock
def test_a_folder_can_be_listed_without_a_right_to_its_files(folders: dict[str, str]) -> None:
    listed = {**folders, "listed": [folders["outside"]]}
    assert confined(listed, "os.listdir(outside)") == "ok"
    assert confined(listed, "(outside / 'file').read_text()") == "EACCES"


@needs_landlock
def test_a_file_is_shown_without_the_folder_it_lies_in(folders: dict[str, str]) -> None:
    file = {**folders, "shown": f"{folders['shown']}/file"}
    assert confined(file, "shown.read_text()") == "ok"
    assert confined(file, "os.listdir(shown.parent)") == "EACCES"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_up_to_the_kernels_confines(folders: dict[str, str], version: int) -> None:
    assert confined(folders, "(inside / 'file').read_text()", version) == "ok"
    assert confined(folders, "(outside / 'file').read_text()", version) == "EACCES"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


@pytest.mark.skipif(HERE < KNOWS_TCP, reason=f"Landlock ABI {HERE} does not know TCP")
@pytest.mark.parametrize("code", ["socket.create_connection(('127.0.0.1', {port}))", "socket.socket().bind(('', 0))"])
def test_tcp_is_shut(folders: dict[str, str], listener: socket.socket, code: str) -> None:
    code = code.format(port=listener.getsockname()[1])
    assert confined(folders, code, KNOWS_TCP - 1) == "ok"
    assert confined(folders, code, KNOWS_TCP) == "EACCES"


@pytest.mark.skipif(HERE < KNOWS_DEVICES, reason=f"Landlock ABI {HERE} does not know devices")
def test_a_device_that_is_shown_for_reading_cannot_be_controlled(folders: dict[str, str]) -> None:
    """RNDGETENTCNT, which anybody may ask."""
    device = {**folders, "shown": "/dev/urandom"}
    code = "import fcntl\nfcntl.ioctl(shown.open('rb'), 0x80045200, bytes(4))"
    assert confined(device, code, KNOWS_DEVICES - 1) == "ok"
    assert confined(device, code, KNOWS_DEVICES) == "EACCES"


@pytest.mark.skipif(HERE < SCOPES_SIGNALS, reason=f"Landlock ABI {HERE} does not scope signals")
def test_signals_do_not_reach_the_parent(folders: dict[str, str]) -> None:
    assert confined(folders, "os.kill(parent, 0)", SCOPES_SIGNALS - 1) == "ok"
    assert confined(folders, "os.kill(parent, 0)", SCOPES_SIGNALS) == "EPERM"


@pytest.mark.skipif(HERE < SCOPES_SIGNALS, reason=f"Landlock ABI {HERE} does not scope signals")
def test_signals_that_a_descriptor_sends_do_not_reach_others(folders: dict[str, str]) -> None:
    """A pipe can have an owner, who is told by a signal of one's choice that it was written to."""
    code = """import fcntl
here, there = os.pipe()
fcntl.fcntl(here, fcntl.F_SETOWN, {pid})
fcntl.fcntl(here, 10, signal.SIGKILL)
fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC)
os.write(there, b'x')"""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert confined(folders, code.format(pid=other.pid)) == "ok"
        other.stdin.write(b"alive\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"alive\n"
        assert confined(folders, code.format(pid=other.pid), SCOPES_SIGNALS - 1) == "ok"
        assert other.wait() == -9


@pytest.mark.skipif(HERE < SCOPES_SIGNALS, reason=f"Landlock ABI {HERE} does not scope sockets")
def test_abstract_sockets_of_others_are_out_of_reach(folders: dict[str, str], tmp_path: Path) -> None:
    name = f"autoresearch-{tmp_path}"
    code = f"socket.socket(socket.AF_UNIX).connect('\\0{name}')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        assert confined(folders, code, SCOPES_SIGNALS - 1) == "ok"
        assert confined(folders, code, SCOPES_SIGNALS) == "EPERM"


@needs_landlock
def test_the_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as error:
        landlock.restrict([landlock.Rule(str(missing), Rights.READ)], HERE)
    assert error.value.filename == str(missing)


def test_a_kernel_without_landlock_is_an_error() -> None:
    with pytest.raises(OSError, match="no Landlock"):
        landlock.restrict([], 0)


def test_only_what_can_be_made_by_honest_code_can_be_made() -> None:
    assert not Rights.WRITE.value & (landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.IOCTL_DEV)
    assert not Rights.DEVICE.value & ~(landlock.OF_FILES | landlock.READ_DIR)


DROPPED = """
import os, subprocess, sys
from pathlib import Path
from harness.sandbox import privileges
privileges.drop()
"""
SETS = "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNewPrivs'))))"
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root has capabilities to drop")
NOTHING = [*["0" * 16] * 5, "1"]
"""Inheritable, permitted, effective, bounding and ambient set; and no new privileges."""


@needs_root
def test_root_keeps_no_capability() -> None:
    assert child(DROPPED + SETS).split() == NOTHING


@needs_root
def test_root_gains_none_by_a_program() -> None:
    again = f"subprocess.check_call([sys.executable, '-S', '-c', {SETS!r}])"
    assert child(DROPPED + again).split() == NOTHING


@needs_root
@pytest.mark.parametrize(
    "code",
    [
        "open({secret!r}, 'w')",
        "open({secret!r}).read()",
        "os.chown({secret!r}, 1, 1)",
        "os.chroot('/')",
        "os.setuid(1)",
    ],
)
def test_root_without_capabilities_is_refused(tmp_path: Path, code: str) -> None:
    """A file that nobody may touch is one for root as well."""
    secret = tmp_path / "secret"
    secret.touch(mode=0)
    attempt = f"    {code.format(secret=str(secret))}\n    print('ok')"
    script = f"{DROPPED}\ntry:\n{attempt}\nexcept PermissionError:\n    print('no')"
    assert child(script) == "no"
    assert child(script.replace("privileges.drop()", "")) == "ok"


def test_dropping_again_and_as_an_ordinary_user_is_harmless() -> None:
    become = "os.setgid(65534)\nos.setuid(65534)\n" if os.getuid() == 0 else ""
    script = DROPPED.replace("privileges.drop()", f"{become}privileges.drop()\nprivileges.drop()")
    found = child(script + SETS).split()
    assert (found[1], found[2], found[4], found[5]) == (NOTHING[1], NOTHING[2], NOTHING[4], "1")
