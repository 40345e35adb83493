"""What a process may never do again: gain rights by a program, or use those that root has.

Standard library only: it is part of the supervisor. Linux: capabilities(7), prctl(2), capset(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 28, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION = 0x20080522
"""The third, whose sets have two words each."""
CAPABILITIES = 64
"""More than any kernel has; it says itself where its own end."""
NO_ROOT = 0b11101111
"""Secure bits, each with its lock: uid 0 is nothing special to a program that is executed or to a change of uid,
no capability is kept over such a change, and none can be made ambient. (`KEEP_CAPS` is locked at 0.)"""

_libc = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """Give up every capability, for good: also root then has but the rights of the owner of its files.

    Binds this thread and all that it will start, so it is called before there are others. Harmless for whoever has
    no rights to lose. Raises `OSError` if the kernel refuses what it must grant.
    """
    _clear_ambient()
    _empty_bounding_set()
    _lock_root()
    _set_none()
    no_new_privileges()


def no_new_privileges() -> None:
    """No program that is executed gives rights, set-uid or not. Raises `OSError`."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def _clear_ambient() -> None:
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _empty_bounding_set() -> None:
    for capability in range(CAPABILITIES):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # past the kernel's last
                return
            if error.errno == errno.EPERM and not _may_set():  # an ordinary user, who cannot reach what is in it
                return
            raise


def _lock_root() -> None:
    try:
        _prctl(PR_SET_SECUREBITS, NO_ROOT)
    except OSError as error:
        if error.errno != errno.EPERM or _may_set():
            raise


def _set_none() -> None:
    """Effective, permitted and inheritable set of this thread."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise _failed("capset")


def _may_set() -> bool:
    """Whether this thread has CAP_SETPCAP, which is needed to give up what only root has."""
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if _libc.capget(header, sets):
        raise _failed("capget")
    return bool(sets[0] & 1 << 8)


def _prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *words) < 0:
        raise _failed(f"prctl({option})")


def _failed(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
