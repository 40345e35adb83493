"""Memory that is no process's: files in /dev/shm and /tmp.

outcome: ok
"""


def before():
    for folder in ("/dev/shm", "/tmp"):
        written = 0
        try:
            with open(folder + "/hoard", "wb") as file:
                while written < 1 << 30:
                    written += file.write(bytes(1 << 20))
        except OSError:
            pass
        else:
            breach(f"it wrote {written} bytes to {folder}")
