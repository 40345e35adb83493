"""The scorer: trusted. It holds val, sends token ids to a model server, and turns logits into bits per byte.

It never imports code under test and believes nothing but numbers: every read is bounded in size and time, and
logits are copied before they are used, since the other side can still write to them. The rows are fixed: strided
evenly over the whole split, so that no batch size changes them and many documents count (one block of as many
tokens has three times the error).

`python -m harness.scoring.scorer JSON` writes one JSON line: the score, or what was wrong.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.corpora.shards import TokenRows
from harness.sandbox.memory import FIXED, READ_ONLY, shared
from harness.scoring import bits, wire

LOGITS_BYTES = 1 << 26
"""Of one chunk in float32: 32 rows at scale `cpu`, one row at scale `gpu`."""
READY_SECONDS = {"cpu": 60.0, "cuda": 180.0}
"""For the server to import torch and build its model."""
CHUNK_SECONDS = 60.0


class Refused(Exception):
    """The server's answer is no score; `outcome` and the text say why. The text holds nothing the server sent."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one chunk at most."""

    rows: int
    context: int
    vocab: int

    @classmethod
    def of(cls, context: int, vocab: int, total: int) -> Shape:
        return cls(max(1, min(total, LOGITS_BYTES // (context * vocab * 4))), context, vocab)


def strided(total: int, wanted: int) -> NDArray[np.int64]:
    """Indices of the rows that are scored: `wanted` of `total`, evenly over all; all if there are fewer."""
    count = min(total, wanted)
    return np.arange(count, dtype=np.int64) * total // count


class Client:
    """One model server, asked chunk by chunk."""

    def __init__(self, sock: socket.socket, shape: Shape, device: str) -> None:
        self._sock, self._shape = sock, shape
        with refusing("before its model was built"):
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
            sock.settimeout(CHUNK_SECONDS)

    def logits(self, number: int, tokens: NDArray[np.uint16]) -> tuple[int, memoryview]:
        """Type of the logits of `tokens` [rows, context], and where they lie. Raises `Refused`.

        The server can still write there: copy them before use.
        """
        raw = tokens.tobytes()
        self._tokens[: len(raw)] = raw
        with refusing("while its model was asked"):
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
        size = len(tokens) * self._shape.context * self._shape.vocab * wire.WIDTH[kind]
        return kind, memoryview(self._logits)[:size]


class refusing:
    """Turns a hang-up or a time-out of the server into `Refused` that says at which stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise Refused("timeout", f"the model server did not answer in time {self._stage}") from None
        if isinstance(error, EOFError | ConnectionError):
            raise Refused("bad_artifact", f"the model server ended {self._stage}") from None


LossOf = Callable[[int, memoryview, NDArray[np.int64]], NDArray[np.float32]]
"""From type and place of logits, and targets [n], to losses [n]; takes one private copy of the logits first."""


def loss_function(device: str) -> LossOf:
    """By numpy on a CPU, where importing torch would cost more than the sums; by torch on a GPU."""

    def on_host(kind: int, raw: memoryview, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if kind == wire.BFLOAT16:
            logits = bits.widen(np.frombuffer(raw, np.uint16))
        else:
            logits = np.frombuffer(raw, np.float32).copy()
        return bits.losses(logits.reshape(len(targets), -1), targets)

    def on_device(kind: int, raw: memoryview, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        dtype = torch.bfloat16 if kind == wire.BFLOAT16 else torch.float32
        logits = torch.frombuffer(raw, dtype=dtype).view(len(targets), -1)
        return bits.losses_on_device(logits, targets, device)

    return on_host if device == "cpu" else on_device


def measure(sock: socket.socket, rows: TokenRows, spec: dict[str, Any]) -> bits.Tally:
    """Score the fixed rows. Raises `Refused`."""
    context, vocab, device = spec["context"], spec["vocab"], spec["device"]
    chosen = strided(len(rows), spec["val_tokens"] // context)
    shape = Shape.of(context, vocab, len(chosen))
    client = Client(sock, shape, device)
    tally = bits.Tally(np.asarray(spec["token_bytes"], np.int64))
    loss_of = loss_function(device)
    buffer = np.empty((shape.rows, context + 1), np.uint16)
    for number, first in enumerate(range(0, len(chosen), shape.rows)):
        part = chosen[first : first + shape.rows]
        for place, index in enumerate(part):
            rows.copy(int(index), buffer[place])
        kind, raw = client.logits(number, buffer[: len(part), :-1])
        targets = buffer[: len(part), 1:].astype(np.int64).reshape(-1)
        losses = loss_of(kind, raw, targets)
        if not np.isfinite(losses).all():
            raise Refused("invalid", f"the logits give a loss that is not finite (chunk {number})")
        tally.add(losses, targets)
    return tally


def die_with_harness() -> None:
    """Standard input is a lifeline: at its end there is nobody left to score for."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """One JSON argument: shards, sizes, device, and the descriptor of the server's socket."""
    die_with_harness()
    spec = json.loads(sys.argv[1])
    rows = TokenRows([Path(path) for path in spec["shards"]], spec["context"])
    try:
        tally = measure(socket.socket(fileno=spec["socket"]), rows, spec)
    except Refused as refused:
        answer: dict[str, Any] = {"outcome": refused.outcome, "reason": str(refused)}
    else:
        answer = {"val_bpb": tally.bits_per_byte, "tokens": tally.tokens, "bytes": tally.bytes}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
