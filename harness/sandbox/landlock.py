"""Confine a process, for good, to some files and to itself, without any right of root's: Landlock.

What is not named is refused: opening, making, moving and removing files, and from newer kernels on TCP, abstract
Unix sockets and signals to processes that are not as confined. Not held are what only looks (`stat`, `chdir`), what
changes a file's owner, mode, times or attributes, UDP, and Unix sockets that have a path: `seccomp` refuses those.

Standard library only: it is part of the supervisor. Linux: landlock(7), include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from harness.sandbox.privileges import no_new_privileges

OLDEST = 3
"""The first that holds truncation: Linux 6.2."""
KNOWS_TCP, KNOWS_DEVICES, SCOPES_SIGNALS = 4, 5, 6
"""Linux 6.7, 6.10 and 6.12."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls, the same on all machines."""
ASK_VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = (1 << bit for bit in range(4, 9))
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM, REFER = (1 << bit for bit in range(9, 14))
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
"""LANDLOCK_ACCESS_FS_*."""
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What there is to allow of something that is no folder."""
TCP = 0b11
"""To bind and to connect."""
SCOPES = 0b11
"""Abstract Unix sockets, and signals, of processes outside."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Rights(Enum):
    """What may be done with a file, or with all that lies in a folder."""

    READ = EXECUTE | READ_FILE | READ_DIR
    """Read, list, execute."""
    LIST = READ_DIR
    """See the names of what lies in a folder, and in all those below it."""
    WRITE = (IOCTL_DEV - 1) & ~(MAKE_CHAR | MAKE_BLOCK)
    """All that there is, except for devices."""
    DEVICE = READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEV
    """Read, write and control device nodes, none of which can be made."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that stays allowed."""

    path: str
    """Links are followed, once, when the rule is made."""
    rights: Rights


def abi() -> int:
    """Version of the kernel's Landlock; 0 where it has none, or where it is switched off."""
    version: int = _libc.syscall(*_words(CREATE_RULESET, 0, 0, ASK_VERSION))
    return max(0, version)


def restrict(rules: Iterable[Rule], version: int) -> None:
    """From now on this thread, and all that it will start, can do what the rules say and no more.

    `version`: of the kernel's Landlock (`abi`), or an older one, whose rights are then all that is held. What is
    open already stays open. Raises `OSError`, which names the path if it is one of the rules' that cannot be opened,
    and leaves everything as it was, but that no more privileges can be had.
    """
    if version < 1:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    handled = _handled(version)
    network, scopes = TCP if version >= KNOWS_TCP else 0, SCOPES if version >= SCOPES_SIGNALS else 0
    attributes = struct.pack("=QQQ", handled, network, scopes)[: _size(version)]
    ruleset = _call(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for rule in rules:
            _add(ruleset, rule, handled)
        no_new_privileges()
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    """The rights to files that a version knows: each later one brought one more."""
    if version >= KNOWS_DEVICES:
        return (IOCTL_DEV << 1) - 1
    return {1: REFER, 2: TRUNCATE}.get(version, IOCTL_DEV) - 1


def _size(version: int) -> int:
    """Bytes of `struct landlock_ruleset_attr`: an older kernel refuses more."""
    return 8 if version < KNOWS_TCP else 16 if version < SCOPES_SIGNALS else 24


def _add(ruleset: int, rule: Rule, handled: int) -> None:
    fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    try:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        allowed = rule.rights.value & handled & (-1 if folder else OF_FILES)
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, rule.path) from error
    finally:
        os.close(fd)


def _call(number: int, *arguments: int | bytes) -> int:
    result: int = _libc.syscall(*_words(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def _words(*arguments: int | bytes) -> list[ctypes.c_long | ctypes.c_char_p]:
    return [ctypes.c_char_p(word) if isinstance(word, bytes) else ctypes.c_long(word) for word in arguments]
