"""It undoes its walls: remounts, unmounts, makes namespaces, changes its root, loads modules.

outcome: ok
"""

import ctypes
import os


def before():
    libc = ctypes.CDLL(None, use_errno=True)
    attempts = {
        "remount /": lambda: libc.mount(b"none", b"/", None, 32 | 4096, None),
        "remount /usr": lambda: libc.mount(b"none", b"/usr/lib", None, 32 | 4096, None),
        "mount over /usr": lambda: libc.mount(b"none", b"/usr/lib", b"tmpfs", 0, None),
        "unmount /proc": lambda: libc.umount2(b"/proc", 2),
        "make a user namespace": lambda: libc.unshare(0x10000000),
        "make a mount namespace": lambda: libc.unshare(0x00020000),
        "enter a namespace": lambda: libc.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
        "change its root": lambda: libc.chroot(b"/tmp"),
        "become another user": lambda: libc.setuid(12345),
        "name the host": lambda: libc.sethostname(b"planted", 7),
        "make a device": lambda: libc.mknod(b"device", 0o060644, 0x0800),
    }
    for name, attempt in attempts.items():
        try:
            done = attempt() == 0
        except OSError:
            done = False
        if done and not (name == "become another user" and os.getuid() == 12345):
            breach(f"it can {name}")
