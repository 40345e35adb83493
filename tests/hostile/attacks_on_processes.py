"""It traces, stops, ends and writes to processes of the harness.

outcome: ok
"""

import ctypes
import os
import signal


def before():
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in (WORLD["harness"], WORLD["canary"]):
        try:
            ours = os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe")
        except OSError:
            ours = False
        if pid <= 4 or (ours and pid == os.getpid()):
            continue
        for number in (signal.SIGSTOP, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except OSError:
                continue
            breach(f"it sent {number} to {pid}")
        if libc.ptrace(16, pid, 0, 0) == 0:
            breach(f"it traces {pid}")
        try:
            open(f"/proc/{pid}/mem", "r+b").close()
        except OSError:
            continue
        breach(f"it can write the memory of {pid}")
    buffer = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    if libc.process_vm_readv(WORLD["canary"], vector, 1, vector, 1, 0) > 0:
        breach("it read the memory of a process")
