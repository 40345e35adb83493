"""Which system calls an untrusted process may make: a filter that the kernel runs before each of them.

It allows what it does not name. Python, torch, CUDA's driver and the compilers behind `torch.compile` together
use some 200 calls, others on each machine and in each version; a list of those would break honest training, and
files, network and signals are held by namespaces or Landlock already. Named is what those do not hold: ways to new
rights, to other processes, to memory that nobody counts, and the parts of the kernel with the worst record. A
number that is newer than this list is refused as unknown, so that programs fall back to what they did before.

Only the low half of an argument is looked at, but for pointers: each one that is named is an `int` to the kernel.
Standard library only: it is part of the supervisor. Linux: seccomp(2), include/uapi/linux/seccomp.h, bpf_common.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness.sandbox.privileges import no_new_privileges

ALLOW, REFUSE, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
"""What a filter answers; an error's number is added to `REFUSE`."""
LOAD, AND, RETURN = 0x20, 0x54, 0x06
IF_EQUAL, IF_GREATER, IF_AT_LEAST = 0x15, 0x25, 0x35
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; an argument has eight bytes, the low half first on both machines."""
NEWEST = 469
"""The last call of Linux 6.18. They have the same numbers on all machines since 424."""
X32 = 0x40000000
"""Set in the numbers of x86-64's second, rare interface, which has other numbers for the same calls."""
ALL = 0xFFFFFFFF


class Unsupported(Exception):
    """There are no call numbers here for this kind of processor."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What tells one kind of processor from another."""

    audit: int
    """AUDIT_ARCH_*: which table of numbers a call was made with."""
    seccomp: int
    """Number of that call."""


MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(audit=0xC000003E, seccomp=317),
    "aarch64": Machine(audit=0xC00000B7, seccomp=277),
}


@dataclass(frozen=True, slots=True)
class Case:
    """An argument that makes a call refused."""

    argument: int
    values: tuple[int, ...]
    among: bool
    """Refused where the argument is among the values; else where it is not."""
    mask: int = ALL
    """The bits that are compared."""
    high: bool = False
    """The high half of the argument, instead of the low one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A call that is refused."""

    call: str
    numbers: Mapping[str, int]
    """By machine; one that does not have the call is missing."""
    why: str
    cases: tuple[Case, ...] = ()
    """It is refused in any of these; without one, always."""
    error: int = errno.EPERM
    """What the caller is told; 0: that it was done."""
    only: Case | None = None
    """It is allowed, whatever the cases, but in this one: for a single value without a mask."""


ALWAYS: Mapping[str, str] = {
    "mounts and roots show what is hidden": """
        mount=165/40 umount2=166/39 pivot_root=155/41 chroot=161/51 move_mount=429 open_tree=428 fsopen=430
        fsconfig=431 fsmount=432 fspick=433 mount_setattr=442 open_tree_attr=467""",
    "a namespace of one's own gives rights in it": "unshare=272/97 setns=308/268",
    "memory and descriptors of other processes": """
        ptrace=101/117 process_vm_readv=310/270 process_vm_writev=311/271 pidfd_getfd=438 kcmp=312/272
        process_madvise=440""",
    "code that the kernel runs, and interfaces with a long record of holes": """
        bpf=321/280 perf_event_open=298/241 userfaultfd=323/282 io_uring_setup=425 io_uring_enter=426
        io_uring_register=427 init_module=175/105 finit_module=313/273 delete_module=176/106 kexec_load=246/104
        kexec_file_load=320/294 modify_ldt=154/- lookup_dcookie=212/18 nfsservctl=180/42""",
    "what others have read, which one process under test could tell the next by": "mincore=27/232 cachestat=451",
    "keys of the user": "add_key=248/217 request_key=249/218 keyctl=250/219",
    "files by number, past every folder": "name_to_handle_at=303/264 open_by_handle_at=304/265 fanotify_init=300/262",
    "settings of the machine": """
        reboot=169/142 swapon=167/224 swapoff=168/225 acct=163/89 quotactl=179/60 quotactl_fd=443
        settimeofday=164/170 clock_settime=227/112 adjtimex=159/171 clock_adjtime=305/266 sethostname=170/161
        setdomainname=171/162 iopl=172/- ioperm=173/- syslog=103/116 vhangup=153/58""",
}
"""Refused at every level: why, and the calls, as NAME=x86_64/aarch64."""
OUTSIDE: Mapping[str, str] = {
    "changes of files outside that Landlock does not hold": """
        chmod=90/- fchmod=91/52 fchmodat=268/53 fchmodat2=452 chown=92/- lchown=94/- fchown=93/55 fchownat=260/54
        utime=132/- utimes=235/- futimesat=261/- utimensat=280/88 setxattr=188/5 lsetxattr=189/6 fsetxattr=190/7
        removexattr=197/14 lremovexattr=198/15 fremovexattr=199/16 setxattrat=463 removexattrat=466
        file_setattr=469""",
    "news of what others do with their files": "inotify_add_watch=254/27",
    "sockets in the machine's own network": "connect=42/203",
}
"""Refused where the machine is shared: no namespaces, so that only Landlock and this filter stand."""
SERVERS = "bind=49/200 listen=50/201 accept=43/202 accept4=288/242"
SHARED_MEMORY = """
    shmget=29/194 shmat=30/196 shmctl=31/195 semget=64/190 semop=65/193 semtimedop=220/192 semctl=66/191
    msgget=68/186 msgsnd=69/189 msgrcv=70/188 msgctl=71/187 mq_open=240/180 mq_unlink=241/181"""
"""All of it: what others made can be used by a number that is guessed."""
MEMORY_FILES = "memfd_create=319/279 memfd_secret=447"
"""CUDA's driver makes such a file and such a server when it starts, and fails if it cannot."""

NAMESPACES = 0x7E020000
"""Every CLONE_NEW* flag that clone() takes."""
STREAM, SEQPACKET, KIND = 1, 5, 0xF
UNIX, NETLINK = 1, 16
SHARED_ANONYMOUS = 0x21
"""MAP_SHARED and MAP_ANONYMOUS; a private mapping has not the first."""
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
SET_FLAGS, SET_VERSION, SET_XATTR, ENABLE_VERITY = 0x40086602, 0x40087602, 0x401C5820, 0x40806685
"""FS_IOC_*: properties of a file that is open for reading."""
FIOSETOWN, SIOCSPGRP, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE = 0x8901, 0x8902, 8, 10, 15, 1024


def rules(*, alone: bool, gpu: bool, own_signals: bool, pid: int | None = None) -> list[Rule]:
    """What is refused, and why. The arguments are those of `program`."""
    found = [rule for why, calls in ALWAYS.items() for rule in _refused(calls, why)]
    found += _refused("clone=56/220", "a namespace of one's own gives rights in it", _unless(0, 0, mask=NAMESPACES))
    found += _refused("clone3=435", "its flags lie in memory; without it libc uses clone", error=errno.ENOSYS)
    found += _refused("personality=135/92", "it can undo the mixing of addresses", _unless(0, 0, ALL))
    found += _forgetting()
    found += _refused("fadvise64=221/223", "a hint, by which one process could tell the next", error=0)
    found += _ioctl(alone, own_signals)
    found += _sockets(alone, gpu)
    if alone:
        found += [rule for why, calls in OUTSIDE.items() for rule in _refused(calls, why)]
        found += _other_processes(gpu)
        found += _fcntl(own_signals)
    if alone or not gpu:
        found += _refused(SHARED_MEMORY, "memory that outlives its processes and that nobody counts")
    if not gpu:
        found += _refused(MEMORY_FILES, "memory that nobody counts")
        # Given back by one who mapped it, it stays for the others, and belongs to no process.
        shared = Case(3, (SHARED_ANONYMOUS,), among=True, mask=SHARED_ANONYMOUS)
        found += _refused("mmap=9/222", "memory that nobody counts", shared)
        found += _refused("sched_setaffinity=203/122", "a trial stays on its cores")
    if own_signals:
        found += _signals(pid)
    return found


def program(
    *, alone: bool, gpu: bool, own_signals: bool, machine: str = os.uname().machine, pid: int | None = None
) -> bytes:
    """The filter as `struct sock_filter[]`, for `install` or for bubblewrap's `--seccomp`.

    `alone`: nothing else keeps the process from network, IPC and processes of the machine: it has no namespaces.
    `gpu`: it needs what CUDA's driver needs. `own_signals`: nothing else keeps its signals from others; with `pid`,
    that of the process to be filtered, it and the children it will have can signal that one and its process group.
    Raises `Unsupported` for a machine that is neither x86-64 nor 64-bit ARM.
    """
    if machine not in MACHINES:
        raise Unsupported(f"no filter of system calls for {machine}, only for {' and '.join(MACHINES)}")
    code = [_op(LOAD, ARCHITECTURE), _op(IF_EQUAL, MACHINES[machine].audit, 1), _op(RETURN, KILL_PROCESS)]
    code += [_op(LOAD, NUMBER)]
    if machine == "x86_64":
        code += [_op(IF_AT_LEAST, X32, 0, 1), _op(RETURN, KILL_PROCESS)]
    code += [_op(IF_GREATER, NEWEST, 0, 1), _op(RETURN, REFUSE + errno.ENOSYS)]
    for rule in rules(alone=alone, gpu=gpu, own_signals=own_signals, pid=pid):
        if machine in rule.numbers:
            body = _body(rule)
            code += [_op(IF_EQUAL, rule.numbers[machine], 0, len(body)), *body]
    return b"".join([*code, _op(RETURN, ALLOW)])


def install(program: bytes) -> None:
    """Put all threads of this process, and all that it will start, under a filter, for good. Raises `OSError`."""
    no_new_privileges()
    code = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // struct.calcsize("=HBBI"), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    set_filter, all_threads = ctypes.c_long(1), ctypes.c_long(1)
    number = ctypes.c_long(MACHINES[os.uname().machine].seccomp)
    failed = libc.syscall(number, set_filter, all_threads, ctypes.byref(header))
    if failed > 0:
        raise OSError(errno.EBUSY, f"seccomp: thread {failed} has a filter of its own")
    if failed:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; a jump passes over as many as it says."""
    return struct.pack("=HBBI", code, yes, no, value)


def _body(rule: Rule) -> list[bytes]:
    """What is done once the number is found to be the rule's: it always ends in an answer."""
    refuse = _op(RETURN, REFUSE + rule.error)
    if not rule.cases:
        return [refuse]
    code: list[bytes] = []
    if rule.only:
        code += [_op(LOAD, ARGUMENTS + 8 * rule.only.argument), _op(IF_EQUAL, rule.only.values[0], 1)]
        code += [_op(RETURN, ALLOW)]
    for case in rule.cases:
        code += [_op(LOAD, ARGUMENTS + 8 * case.argument + 4 * case.high), _op(AND, case.mask)]
        if case.among:
            code += [piece for value in case.values for piece in (_op(IF_EQUAL, value, 0, 1), refuse)]
        else:
            left = len(case.values)
            code += [_op(IF_EQUAL, value, left - i) for i, value in enumerate(case.values)] + [refuse]
    return [*code, _op(RETURN, ALLOW)]


def _refused(calls: str, why: str, *cases: Case, error: int = errno.EPERM) -> Iterator[Rule]:
    for word in calls.split():
        call, _, numbers = word.partition("=")
        on_x86, _, on_arm = numbers.partition("/")
        found = {"x86_64": on_x86, "aarch64": on_arm or on_x86}
        yield Rule(call, {name: int(n) for name, n in found.items() if n != "-"}, why, cases, error)


def _if(argument: int, *values: int) -> Case:
    return Case(argument, values, among=True)


def _unless(argument: int, *values: int, mask: int = ALL) -> Case:
    return Case(argument, values, among=False, mask=mask)


def _forgetting() -> Iterator[Rule]:
    """No process may ask that its children are forgotten as they end (SIGCHLD ignored, or SA_NOCLDWAIT).

    The kernel then forgets what they used as well, and the clock with it. It is told that it was done, since shells
    and build tools set handlers of this signal and go on without hearing it; to ask what is set stays allowed.
    """
    given = (_unless(1, 0), Case(1, (0,), among=False, high=True))
    for rule in _refused("rt_sigaction=13/134", "children whose time nobody counts", *given, error=0):
        yield replace(rule, only=_if(0, signal.SIGCHLD))


def _ioctl(alone: bool, own_signals: bool) -> Iterator[Rule]:
    requests = [TIOCSTI, TIOCLINUX, TIOCSETD, ENABLE_VERITY]
    requests += [SET_FLAGS, SET_VERSION, SET_XATTR] if alone else []
    requests += [FIOSETOWN, SIOCSPGRP] if own_signals else []
    return _refused("ioctl=16/29", "input to terminals, properties of files, signals", _if(1, *requests))


def _sockets(alone: bool, gpu: bool) -> Iterator[Rule]:
    """Pairs are always allowed, but where others can be reached they are of a kind that cannot be sent elsewhere."""
    connected = (_unless(0, UNIX), _unless(1, STREAM, SEQPACKET, mask=KIND))
    if not alone:
        # There is no network. A socket of it, sent to the harness, could make it wait when it closes that (SO_LINGER).
        why = "protocols of the kernel that nobody needs"
        yield from _refused("socket=41/198", why, _unless(0, UNIX, NETLINK))
        yield from _refused("socketpair=53/199", why, _unless(0, UNIX))
        return
    why = "sockets in the machine's own network"
    yield from _refused("socketpair=53/199", why, *connected)
    if gpu:
        yield from _refused("socket=41/198", why, *connected)
    else:
        yield from _refused(f"socket=41/198 {SERVERS}", why)


def _other_processes(gpu: bool) -> Iterator[Rule]:
    """Limits, priority and cores of whatever the user runs: the harness could be ended or slowed by them."""
    why, himself = "limits, priority and cores of other processes", _unless(0, 0)
    yield from _refused("prlimit64=302/261 sched_setparam=142/118 sched_setscheduler=144/119", why, himself)
    yield from _refused("sched_setattr=314/274", why, himself)
    yield from _refused("setpriority=141/140", why, _unless(0, 0, 1), _unless(1, 0))
    yield from _refused("ioprio_set=251/30", why, _unless(0, 1, 2), _unless(1, 0))
    if gpu:
        yield from _refused("sched_setaffinity=203/122", why, himself)


def _fcntl(own_signals: bool) -> Iterator[Rule]:
    commands = (F_SETLEASE, F_SETOWN, F_SETSIG, F_SETOWN_EX) if own_signals else (F_SETLEASE,)
    return _refused("fcntl=72/25", "holding up who opens a file, signals to its owner", _if(1, *commands))


def _signals(pid: int | None) -> Iterator[Rule]:
    """`abort()` and `pthread_kill` need tgkill; in a child of the filtered process they end in a trap instead."""
    why = "signals to other processes"
    yield from _refused("rt_sigqueueinfo=129/138 rt_tgsigqueueinfo=297/240 pidfd_send_signal=424", why)
    if pid is None:
        yield from _refused("kill=62/129", why, _unless(0, 0))
    else:
        yield from _refused("kill=62/129", why, _unless(0, 0, pid))
        yield from _refused("tkill=200/130 tgkill=234/131", why, _unless(0, pid))
