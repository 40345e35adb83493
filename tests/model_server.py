"""A model server in a thread: the other side of the scorer's socket, keeping the protocol as far as it is told to."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from harness.scoring import wire


class Server:
    """Answers each chunk by `answer`; keeps what it saw."""

    def __init__(self, sock: socket.socket, vocab: int, answer: Answer) -> None:
        self.sock, self.vocab, self.answer = sock, vocab, answer
        self.seen: list[np.ndarray] = []
        self.descriptors: list[int] = []

    def run(self) -> None:
        try:
            self.sock.sendall(wire.READY.pack(wire.MAGIC))
            hello, self.descriptors, _, _ = socket.recv_fds(self.sock, wire.HELLO.size, 2)
            _, most, context, vocab = wire.HELLO.unpack(hello)
            tokens = mmap.mmap(self.descriptors[0], most * context * 2, prot=mmap.PROT_READ)
            self.logits = mmap.mmap(self.descriptors[1], most * context * vocab * 4)
            while True:
                _, number, rows = wire.REQUEST.unpack(wire.receive(self.sock, wire.REQUEST.size))
                batch = np.frombuffer(tokens[: rows * context * 2], np.uint16).reshape(rows, context)
                self.seen.append(batch.copy())
                self.answer(self, number, batch)
        except (EOFError, OSError):
            pass
        finally:
            self.sock.close()

    def give(self, number: int, logits: np.ndarray) -> None:
        """Answer with float32 logits [rows, context, vocab]."""
        raw = np.ascontiguousarray(logits, np.float32).tobytes()
        self.logits[: len(raw)] = raw
        self.reply(number, wire.FLOAT32, *logits.shape)

    def reply(self, number: int, kind: int, *shape: int) -> None:
        self.sock.sendall(wire.REPLY.pack(wire.MAGIC, number, kind, *shape))


Answer = Callable[[Server, int, np.ndarray], None]


@contextmanager
def serving(vocab: int, answer: Answer) -> Iterator[tuple[socket.socket, Server]]:
    """The scorer's end of the socket, and the server; it has ended when the block has."""
    ours, theirs = socket.socketpair()
    server = Server(theirs, vocab, answer)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield ours, server
    finally:
        ours.close()
        thread.join(20)
        for fd in server.descriptors:
            os.close(fd)
