"""It calls out: TCP, UDP, names, sockets of the machine.

outcome: ok
"""

import socket


def before():
    inet, unix = socket.AF_INET, socket.AF_UNIX
    ways = [
        (inet, socket.SOCK_STREAM, ("127.0.0.1", WORLD["tcp"])),
        (inet, socket.SOCK_DGRAM, ("127.0.0.1", WORLD["udp"])),
        (inet, socket.SOCK_DGRAM, ("192.0.2.1", 53)),
        (unix, socket.SOCK_STREAM, "\0" + WORLD["abstract"]),
        (unix, socket.SOCK_STREAM, WORLD["socket"]),
    ]
    for family, kind, address in ways:
        try:
            with socket.socket(family, kind) as sock:
                sock.settimeout(2)
                sock.connect(address)
                sock.send(b"out")
        except OSError:
            continue
        if kind == socket.SOCK_STREAM:
            breach(f"it reached {address}")
    try:
        socket.getaddrinfo("example.com", 80)
    except OSError:
        pass
    else:
        breach("it resolved a name")
