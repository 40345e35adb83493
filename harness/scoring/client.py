"""The scorer's end of the socket to one model server: tokens in, logits out, and nothing else is believed."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from harness.sandbox.memory import FIXED, READ_ONLY, shared
from harness.scoring import wire
from harness.scoring.audit import Tokens

READY_SECONDS = {"cpu": 60.0, "cuda": 180.0}
"""For the server to import torch and build its model."""
FIRST_SECONDS = 300.0
"""For the first chunk: a model may compile itself then."""
CHUNK_SECONDS = 60.0


class Refused(Exception):
    """The server's answer is no score; `outcome` and the text say why. The text holds nothing the server sent.

    `blind`: no server had seen a token of the split, so that what it printed may be shown.
    """

    def __init__(self, outcome: str, reason: str, blind: bool = False) -> None:
        super().__init__(reason)
        self.outcome, self.blind = outcome, blind


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one chunk at most."""

    rows: int
    context: int
    vocab: int


@dataclass(frozen=True, slots=True)
class Logits:
    """Of one chunk, where the server can still write: copy them before use."""

    kind: int
    raw: memoryview
    vocab: int


class Client:
    """One model server, asked chunk by chunk. `stage` begins what is said of its failures."""

    def __init__(self, sock: socket.socket, shape: Shape, device: str, stage: str = "") -> None:
        self._sock, self._shape, self._stage, self._asked = sock, shape, stage, 0
        with refusing(f"{stage}before its model was built", blind=not stage):
            sock.settimeout(READY_SECONDS[device])
            if wire.receive(sock, wire.READY.size) != wire.READY.pack(wire.MAGIC):
                raise Refused("bad_artifact", "the model server broke the protocol")
            tokens = shape.rows * shape.context
            token_fd, self._tokens = shared("tokens", tokens * 2, READ_ONLY)
            logit_fd, self._logits = shared("logits", tokens * shape.vocab * 4, FIXED)
            hello = wire.HELLO.pack(wire.MAGIC, shape.rows, shape.context, shape.vocab)
            socket.send_fds(sock, [hello], [token_fd, logit_fd])
            os.close(token_fd)
            os.close(logit_fd)

    def logits(self, tokens: Tokens) -> Logits:
        """Of `tokens` [rows, context]. Raises `Refused`."""
        raw = tokens.tobytes()
        self._tokens[: len(raw)] = raw
        number, self._asked = self._asked, self._asked + 1
        self._sock.settimeout(CHUNK_SECONDS if number else FIRST_SECONDS)
        with refusing(f"{self._stage}while its model was asked"):
            self._sock.sendall(wire.REQUEST.pack(wire.MAGIC, number, len(tokens)))
            reply = wire.REPLY.unpack(wire.receive(self._sock, wire.REPLY.size))
        _, answered, kind, *found = reply
        wanted = (len(tokens), self._shape.context, self._shape.vocab)
        if reply[0] != wire.MAGIC or answered != number:
            raise Refused("bad_artifact", "the model server broke the protocol")
        if tuple(found) != wanted:
            raise Refused("bad_artifact", f"logits have shape {tuple(found)}, not [B, T, V] = {wanted}")
        if kind not in wire.WIDTH:
            raise Refused("bad_artifact", "logits are no tensor of float32 or bfloat16")
        size = tokens.size * self._shape.vocab * wire.WIDTH[kind]
        return Logits(kind, memoryview(self._logits)[:size], self._shape.vocab)

    def close(self) -> None:
        """Hang up: the server ends."""
        self._sock.close()


class refusing:
    """Turns a hang-up or a time-out of the server into `Refused` that says at which stage."""

    def __init__(self, stage: str, blind: bool = False) -> None:
        self._stage, self._blind = stage, blind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise Refused("timeout", f"the model server did not answer in time {self._stage}", self._blind) from None
        if isinstance(error, EOFError | ConnectionError):
            raise Refused("bad_artifact", f"the model server ended {self._stage}", self._blind) from None
