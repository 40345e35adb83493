"""The filter of system calls: what it answers, reckoned by an interpreter, and what the kernel makes of it."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest

from harness.sandbox import seccomp
from harness.sandbox.seccomp import ALLOW, KILL_PROCESS, MACHINES, NEWEST, REFUSE, Unsupported

ROOT = Path(__file__).parents[1]
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
FILTERS = [dict(zip(("alone", "gpu", "own_signals"), on, strict=True)) for on in product((False, True), repeat=3)]
LEVEL_3 = {"alone": False, "gpu": False, "own_signals": False}
LEVEL_2 = {"alone": True, "gpu": False, "own_signals": False}
LEVEL_2_OLD = {"alone": True, "gpu": False, "own_signals": True}
LEVEL_2_GPU = {"alone": True, "gpu": True, "own_signals": False}
EPERM, ENOSYS = REFUSE + errno.EPERM, REFUSE + errno.ENOSYS
PID = 4321

NEVER = """
    mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr chroot unshare setns
    ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp bpf perf_event_open userfaultfd io_uring_setup
    io_uring_enter io_uring_register keyctl add_key request_key kexec_load kexec_file_load init_module finit_module
    delete_module reboot swapon swapoff acct quotactl settimeofday clock_settime adjtimex clock_adjtime sethostname
    setdomainname syslog name_to_handle_at open_by_handle_at fanotify_init lookup_dcookie nfsservctl vhangup
    process_madvise
"""
NEVER_OUTSIDE = """
    connect fchmod fchmodat fchmodat2 fchown fchownat utimensat setxattr lsetxattr fsetxattr removexattr lremovexattr
    fremovexattr setxattrat removexattrat file_setattr shmget shmat semget semop semctl msgget msgrcv msgctl mq_open
    inotify_add_watch
"""
TIOCSTI, TIOCLINUX, TCGETS, F_GETFL, F_SETOWN, F_SETSIG = 0x5412, 0x541C, 0x5401, 3, 8, 10
UNIX, INET, PACKET, STREAM, DGRAM, CLOEXEC = 1, 2, 17, 1, 2, 0x80000


def answer(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the kernel would answer: an interpreter of the instructions that filters are made of."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        match operation:
            case seccomp.LOAD:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case seccomp.AND:
                accumulator &= value
            case seccomp.IF_EQUAL:
                at += yes if accumulator == value else no
            case seccomp.IF_GREATER:
                at += yes if accumulator > value else no
            case seccomp.IF_AT_LEAST:
                at += yes if accumulator >= value else no
            case seccomp.RETURN:
                return value
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


def asked(filters: Mapping[str, object], machine: str, call: str, *arguments: int, pid: int | None = None) -> int:
    """What a filter answers to a call by name."""
    numbers = {**_headers(machine), **{rule.call: rule.numbers.get(machine) for rule in _every_rule()}}
    number = numbers[call]
    assert number is not None
    program = seccomp.program(**filters, machine=machine, pid=pid)
    return answer(program, MACHINES[machine].audit, number, *arguments)


def _every_rule() -> list[seccomp.Rule]:
    return [rule for filters in FILTERS for pid in (None, PID) for rule in seccomp.rules(**filters, pid=pid)]


def _headers(machine: str) -> dict[str, int]:
    path = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"there is no {path}: install the kernel's headers (linux-libc-dev)")
    return {name: int(number) for name, number in re.findall(r"__NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    known = _headers(machine)
    ours = {rule.call: rule.numbers.get(machine) for rule in _every_rule()}
    older = {call: number for call, number in ours.items() if (number or 0) <= known["set_mempolicy_home_node"]}
    assert older == {call: known.get(call) for call in older}


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_no_call_has_two_rules(filters: dict[str, bool]) -> None:
    """The second would never be reached."""
    calls = [rule.call for rule in seccomp.rules(**filters, pid=PID)]
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_that_no_rule_names_is_allowed(machine: str, filters: dict[str, bool]) -> None:
    named = {rule.numbers.get(machine) for rule in seccomp.rules(**filters)}
    program = seccomp.program(**filters, machine=machine)
    others = set(range(NEWEST + 1)) - named
    assert {answer(program, MACHINES[machine].audit, number) for number in others} == {ALLOW}


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("machine", MACHINES)
def test_what_gives_rights_is_refused_by_every_filter(machine: str, filters: dict[str, bool]) -> None:
    here = {rule.call for rule in seccomp.rules(**filters) if machine in rule.numbers}
    assert here >= set(NEVER.split())
    assert {asked(filters, machine, call) for call in NEVER.split()} == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_landlock_does_not_hold_is_refused_where_nothing_else_stands(machine: str) -> None:
    assert {asked(LEVEL_2, machine, call) for call in NEVER_OUTSIDE.split()} == {EPERM}


def test_the_calls_of_one_machine_only_are_refused_there() -> None:
    for call in ("iopl", "ioperm", "modify_ldt"):
        assert asked(LEVEL_3, "x86_64", call) == EPERM
    for call in ("chmod", "chown", "lchown", "utime", "utimes", "futimesat"):
        assert asked(LEVEL_2, "x86_64", call) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_kind_of_processor_kill(machine: str) -> None:
    i386 = 0x40000003
    assert answer(seccomp.program(**LEVEL_3, machine=machine), i386, 0) == KILL_PROCESS


def test_the_second_interface_of_x86_kills() -> None:
    program = seccomp.program(**LEVEL_3, machine="x86_64")
    mount = seccomp.X32 + 165
    assert answer(program, MACHINES["x86_64"].audit, mount) == KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_that_are_newer_than_the_list_are_unknown(machine: str) -> None:
    program = seccomp.program(**LEVEL_3, machine=machine)
    assert {answer(program, MACHINES[machine].audit, NEWEST + more) for more in (1, 2, 1000)} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_processes_and_threads_but_no_namespace(machine: str) -> None:
    fork, thread = 0x01200011, 0x003D0F00
    assert {asked(LEVEL_3, machine, "clone", flags) for flags in (fork, thread)} == {ALLOW}
    spaces = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
    assert {asked(LEVEL_3, machine, "clone", fork | space) for space in spaces} == {EPERM}
    assert asked(LEVEL_3, machine, "clone3") == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_the_personality_can_be_asked_for_and_not_set(machine: str) -> None:
    no_randomize, query = 0x0040000, 0xFFFFFFFF
    assert [asked(LEVEL_3, machine, "personality", wanted) for wanted in (0, query, no_randomize)] == [
        ALLOW,
        ALLOW,
        EPERM,
    ]


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_can_be_typed_into_a_terminal(machine: str) -> None:
    """The kernel looks at the low half of the request alone, and so must the filter."""
    high = 1 << 32
    refused = (TIOCSTI, TIOCLINUX, TIOCSTI | high)
    assert {asked(LEVEL_3, machine, "ioctl", 0, request) for request in refused} == {EPERM}
    assert asked(LEVEL_3, machine, "ioctl", 0, TCGETS) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_in_a_network_of_its_own_a_trial_has_no_socket_that_could_make_who_closes_it_wait(machine: str) -> None:
    usual, others = (UNIX, 16), (INET, 10, PACKET, 38, 40, 44)  # netlink; IPv6, packet, crypto, vsock, xdp
    assert {asked(LEVEL_3, machine, "socket", family, STREAM) for family in usual} == {ALLOW}
    assert {asked(LEVEL_3, machine, "socket", family, STREAM) for family in others} == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_in_the_machines_network_there_are_pairs_that_stay_pairs(machine: str) -> None:
    """A datagram socket could be sent to any address, also one that was made as half of a pair."""
    assert asked(LEVEL_2, machine, "socketpair", UNIX, STREAM | CLOEXEC) == ALLOW
    assert {asked(LEVEL_2, machine, "socketpair", UNIX, kind) for kind in (DGRAM, 3, DGRAM | CLOEXEC)} == {EPERM}
    assert asked(LEVEL_2, machine, "socketpair", INET, STREAM) == EPERM
    assert {asked(LEVEL_2, machine, "socket", family, STREAM) for family in (UNIX, INET, 10, 16)} == {EPERM}
    assert {asked(LEVEL_2, machine, call) for call in ("bind", "listen", "accept", "accept4")} == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_cuda_may_serve_its_socket_and_connect_to_none(machine: str) -> None:
    seqpacket = 5
    assert asked(LEVEL_2_GPU, machine, "socket", UNIX, seqpacket) == ALLOW
    assert {asked(LEVEL_2_GPU, machine, call) for call in ("bind", "listen", "accept", "memfd_create")} == {ALLOW}
    assert asked(LEVEL_2_GPU, machine, "socket", UNIX, DGRAM) == EPERM
    assert asked(LEVEL_2_GPU, machine, "socket", INET, STREAM) == EPERM
    assert asked(LEVEL_2_GPU, machine, "connect") == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_on_a_cpu_there_is_no_memory_that_nobody_counts_and_no_other_core(machine: str) -> None:
    for call in ("memfd_create", "memfd_secret", "shmget", "sched_setaffinity"):
        assert asked(LEVEL_3, machine, call) == EPERM
        assert asked({**LEVEL_3, "gpu": True}, machine, call) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_limits_priority_and_cores_of_others_are_out_of_reach(machine: str) -> None:
    user = 2
    for filters in (LEVEL_2, LEVEL_2_GPU):
        assert asked(filters, machine, "prlimit64", 0) == ALLOW
        assert asked(filters, machine, "setpriority", 0, 0, 5) == ALLOW
        assert asked(filters, machine, "setpriority", 0, PID, 5) == EPERM
        assert asked(filters, machine, "setpriority", user, 0, 5) == EPERM
        for call in ("prlimit64", "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"):
            assert asked(filters, machine, call, PID) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_where_landlock_leaves_signals_open_they_reach_the_trial_alone(machine: str) -> None:
    everybody, other = 0xFFFFFFFF, PID + 1
    for call in ("kill", "tgkill", "tkill"):
        assert asked(LEVEL_2_OLD, machine, call, PID, pid=PID) == ALLOW
        assert asked(LEVEL_2_OLD, machine, call, other, pid=PID) == EPERM
        assert asked(LEVEL_2_OLD, machine, call, everybody, pid=PID) == EPERM
    assert asked(LEVEL_2_OLD, machine, "kill", PID) == EPERM
    for call in ("rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"):
        assert asked(LEVEL_2_OLD, machine, call, PID, pid=PID) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_where_landlock_leaves_signals_open_no_descriptor_sends_them(machine: str) -> None:
    assert {asked(LEVEL_2_OLD, machine, "fcntl", 0, how) for how in (F_SETOWN, F_SETSIG, 15)} == {EPERM}
    assert {asked(LEVEL_2_OLD, machine, "ioctl", 0, how) for how in (0x8901, 0x8902)} == {EPERM}
    assert asked(LEVEL_2_OLD, machine, "fcntl", 0, F_GETFL) == ALLOW


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        seccomp.program(**LEVEL_3, machine="riscv64")


def test_every_rule_says_why() -> None:
    assert all(rule.why for rule in _every_rule())


UNDER_FILTER = """
import ctypes, errno, fcntl, json, os, signal, socket, sys
from harness.sandbox import seccomp
libc = ctypes.CDLL(None, use_errno=True)
def asked(result):
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
parent = os.getppid()
filters = json.loads(sys.argv[1])
seccomp.install(seccomp.program(**filters, pid=os.getpid() if filters["own_signals"] else None))
try:
    {code}
except OSError as error:
    print(errno.errorcode[error.errno])
"""
needs_this_machine = pytest.mark.skipif(os.uname().machine not in MACHINES, reason="no filter for this processor")


def under(filters: Mapping[str, bool], code: str, *options: str) -> str:
    """What Python prints that installs a filter first."""
    script = UNDER_FILTER.replace("{code}", code.replace("\n", "\n    "))
    argv = [sys.executable, *options, "-c", script, json.dumps(filters)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=_environment(), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


REFUSED = {
    "unshare": (LEVEL_3, "print(asked(libc.unshare(0x10000000)))"),
    "clone into a user namespace": (LEVEL_3, "print(asked(libc.syscall({clone}, 0x10000011, 0, 0, 0, 0)))"),
    "mount": (LEVEL_3, "print(asked(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)))"),
    "ptrace": (LEVEL_3, "print(asked(libc.ptrace(16, parent, 0, 0)))"),
    "TIOCSTI": (LEVEL_3, "fcntl.ioctl(os.openpty()[1], 0x5412, b'x')"),
    "a packet socket": (LEVEL_3, "socket.socket(17, socket.SOCK_DGRAM)"),
    "other cores": (LEVEL_3, "os.sched_setaffinity(0, os.sched_getaffinity(0))"),
    "a memory file": (LEVEL_3, "os.memfd_create('x')"),
    "a TCP socket": (LEVEL_2, "socket.socket()"),
    "a UDP socket": (LEVEL_2, "socket.socket(type=socket.SOCK_DGRAM)"),
    "a Unix socket": (LEVEL_2, "socket.socket(socket.AF_UNIX)"),
    "a pair that can be sent elsewhere": (LEVEL_2, "socket.socketpair(type=socket.SOCK_DGRAM)"),
    "another's limits": (LEVEL_2, "import resource; resource.prlimit(parent, resource.RLIMIT_CPU)"),
    "another's priority": (LEVEL_2, "os.setpriority(os.PRIO_PROCESS, parent, 19)"),
    "a mode": (LEVEL_2, "os.chmod('/', 0o755)"),
    "an owner": (LEVEL_2, "os.chown('/', 0, 0)"),
    "times": (LEVEL_2, "os.utime('/')"),
    "a signal to the parent": (LEVEL_2_OLD, "os.kill(parent, 0)"),
    "a signal to everybody": (LEVEL_2_OLD, "os.kill(-1, 0)"),
    "a signal by a descriptor": (LEVEL_2_OLD, "fcntl.fcntl(0, fcntl.F_SETOWN, parent)"),
}


@needs_this_machine
@pytest.mark.parametrize("what", REFUSED)
def test_the_kernel_refuses(what: str) -> None:
    filters, code = REFUSED[what]
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    assert under(filters, code.replace("{clone}", str(clone)), "-S") == "EPERM"


@needs_this_machine
def test_libc_makes_threads_without_clone3() -> None:
    code = "print(asked(libc.syscall(435, 0, 0)))\nimport threading\nthread = threading.Thread(target=print, args=[1])"
    assert under(LEVEL_2_OLD, f"{code}\nthread.start(); thread.join()", "-S").split() == ["ENOSYS", "1"]


@needs_this_machine
@pytest.mark.parametrize("filters", [LEVEL_3, LEVEL_2, LEVEL_2_OLD], ids=str)
def test_a_program_that_is_started_is_under_the_filter_too(filters: dict[str, bool]) -> None:
    code = "import subprocess\nprint(subprocess.run(['unshare', '-U', 'true'], stderr=subprocess.DEVNULL).returncode)"
    assert under(filters, code, "-S") == "1"


@needs_this_machine
def test_threads_that_run_already_come_under_the_filter() -> None:
    script = """
import ctypes, json, queue, sys, threading
from harness.sandbox import seccomp
wake, said = queue.Queue(), queue.Queue()
def other():
    wake.get()
    said.put(ctypes.CDLL(None).unshare(0x04000000))
thread = threading.Thread(target=other)
thread.start()
seccomp.install(seccomp.program(**json.loads(sys.argv[1])))
wake.put(1)
print(said.get())
thread.join()
"""
    argv = [sys.executable, "-S", "-c", script, json.dumps(LEVEL_3)]
    assert subprocess.check_output(argv, env=_environment()).strip() == b"-1"


@needs_this_machine
@pytest.mark.parametrize("filters", [LEVEL_3, LEVEL_2], ids=str)
def test_a_process_can_end_its_children(filters: dict[str, bool]) -> None:
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nchild.kill()\nprint(child.wait())"
    assert under(filters, code, "-S") == "-9"


@needs_this_machine
@pytest.mark.parametrize("filters", [LEVEL_3, LEVEL_2, LEVEL_2_OLD], ids=str)
def test_a_process_and_its_children_can_abort(filters: dict[str, bool]) -> None:
    child = "child = os.fork()\nif not child: os.abort()\nprint(os.WIFSIGNALED(os.waitpid(child, 0)[1]), flush=True)"
    own = "signal.signal(signal.SIGABRT, lambda *_: print('heard'))\nsignal.raise_signal(signal.SIGABRT)"
    assert under(filters, f"{child}\n{own}", "-S").split() == ["True", "heard"]


TRAINING = """
import warnings
warnings.simplefilter("ignore")
import torch
from multiprocessing import Pool
from safetensors.torch import load_file, save_file
torch.manual_seed(0)
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
losses = []
for _ in range(20):
    loss = (model(torch.ones(16, 8)) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]
save_file(model.state_dict(), "model.safetensors")
assert load_file("model.safetensors")["weight"].equal(model.weight)
with Pool(2) as pool:
    assert pool.map(abs, [-1, 2]) == [1, 2]
print("trained")
"""


@needs_this_machine
@pytest.mark.parametrize("filters", [LEVEL_3, LEVEL_2], ids=str)
def test_torch_trains_and_saves(filters: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert under(filters, TRAINING.strip()) == "trained"


@needs_this_machine
def test_workers_hand_tensors_over_in_a_network_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do it by a Unix socket with a path, which a filter cannot tell from one outside."""
    monkeypatch.chdir(tmp_path)
    code = "from torch.utils.data import DataLoader\nprint(sum(map(len, DataLoader(range(8), 4, num_workers=2))))"
    assert under(LEVEL_3, code) == "8"


SIGCHLD, SIGINT, A_POINTER, A_HIGH_POINTER = 17, 2, 0x7FFC12345678, 0x100000000


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("level", [LEVEL_3, LEVEL_2, LEVEL_2_GPU])
def test_to_have_children_forgotten_is_done_in_word_only(machine: str, level: dict[str, bool]) -> None:
    """An answer of 0 without the deed: what a child used is never lost to the clock."""
    (number,) = {rule.numbers[machine] for rule in seccomp.rules(**level) if rule.call == "rt_sigaction"}
    code, audit = seccomp.program(**level, machine=machine), MACHINES[machine].audit
    asked = {
        "set": answer(code, audit, number, SIGCHLD, A_POINTER, 0, 8),
        "set from a high address": answer(code, audit, number, SIGCHLD, A_HIGH_POINTER, 0, 8),
        "ask": answer(code, audit, number, SIGCHLD, 0, A_POINTER, 8),
        "set another": answer(code, audit, number, SIGINT, A_POINTER, 0, 8),
    }
    assert asked == {"set": REFUSE, "set from a high address": REFUSE, "ask": ALLOW, "set another": ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_that_stays_when_it_is_given_back_is_refused_on_a_cpu(machine: str) -> None:
    shared, private, of_a_file = 0x21, 0x22, 0x1
    flags = {"shared": shared, "validated": shared | 2, "private": private, "of a file": of_a_file}
    found = {name: asked(LEVEL_3, machine, "mmap", 0, 4096, 3, flag) for name, flag in flags.items()}
    assert found == {"shared": EPERM, "validated": EPERM, "private": ALLOW, "of a file": ALLOW}
    assert asked({**LEVEL_3, "gpu": True}, machine, "mmap", 0, 4096, 3, shared) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_what_others_have_read_is_not_told(machine: str) -> None:
    for level in (LEVEL_3, LEVEL_2, LEVEL_2_GPU):
        assert {asked(level, machine, call) for call in ("mincore", "cachestat")} == {EPERM}
        assert asked(level, machine, "fadvise64") == REFUSE  # in word only
