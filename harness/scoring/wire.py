"""The binary protocol between scorer and model server. Standard library only; both sides load this file.

One socket. A server imports what it needs and waits for `START`: only then does it look at its folder and build the
model, and it says `READY` once that is done. The scorer answers with the shape of the two shared buffers and passes
their descriptors (tokens: sealed, read-only for the server; logits: written by it). Then, a chunk of rows at a time:
a `REQUEST`, and a `REPLY` once the logits lie in the buffer. All fixed size.
"""

from __future__ import annotations

import socket
import struct

START = struct.Struct("<8s")
READY = struct.Struct("<8s")
HELLO = struct.Struct("<8sQQQ")
"""Magic, rows a chunk at most, context, vocabulary."""
REQUEST = struct.Struct("<8sQQ")
"""Magic, number of the chunk, rows."""
REPLY = struct.Struct("<8sQQQQQ")
"""Magic, number of the chunk, type of the logits, and their shape: rows, context, vocabulary."""
MAGIC = b"AR-BPB-2"
FLOAT32, BFLOAT16, OTHER = 0, 1, 2
WIDTH = {FLOAT32: 4, BFLOAT16: 2}


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises EOFError if the other side hangs up, TimeoutError by the socket's own limit."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
