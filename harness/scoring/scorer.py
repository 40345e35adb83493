"""The scorer: trusted. It holds val, sends token ids to a model server, and turns logits into bits per byte.

It never imports code under test and believes nothing but numbers: every read is bounded in size and time, and
logits are copied before they are used, since the other side can still write to them. The rows are fixed: strided
evenly over the whole split, so that no batch size changes them and many documents count (one block of as many
tokens has three times the error). Pass 1 is the score; then the audit asks another server (harness/scoring/audit.py).

`python -m harness.scoring.scorer JSON` writes two JSON lines: that pass 1 is over, and the score; or one, at any
point: what was wrong.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.corpora.shards import TokenRows
from harness.scoring import bits, wire
from harness.scoring.audit import Finding, Losses, Plan, Tokens
from harness.scoring.client import Client, Logits, Refused, Shape

Number = TypeVar("Number", np.uint16, np.float32)

LOGITS_BYTES = 1 << 26
"""Of one chunk in float32 at most: 32 rows at scale `cpu`, one row at scale `gpu`."""
CHUNKS = 16
"""At least so many, where there are as many rows: the audit takes shares of whole chunks."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The score, and what the audit found."""

    val_bpb: float
    """With the audited gap on top, where it is positive: what was read ahead gains nothing."""
    tokens: int
    bytes: int
    gap: float
    """Mean gain from later tokens at the audit's cuts, in bits a byte of the scored text; 0 of a causal model."""
    audited: int
    """Cuts."""


def strided(total: int, wanted: int) -> NDArray[np.int64]:
    """Indices of the rows that are scored: `wanted` of `total`, evenly over all; all if there are fewer."""
    count = min(total, wanted)
    return np.arange(count, dtype=np.int64) * total // count


def fixed_rows(rows: TokenRows, wanted: int) -> Tokens:
    """The rows that are scored, uint16 [rows, context + 1]."""
    chosen = strided(len(rows), wanted)
    text = np.empty((len(chosen), rows.context + 1), np.uint16)
    for place, index in enumerate(chosen):
        rows.copy(int(index), text[place])
    return text


def chunked(total: int, context: int, vocab: int) -> list[NDArray[np.int64]]:
    """The rows of each chunk, at most LOGITS_BYTES of logits; sizes differ by one at most.

    Interleaved: no chunk holds two rows that follow upon each other, of which the second would begin with the last
    target of the first.
    """
    most = max(1, LOGITS_BYTES // (context * vocab * 4))
    count = min(total, max(CHUNKS, -(-total // most)))
    return [np.arange(first, total, count, dtype=np.int64) for first in range(count)]


LossOf = Callable[[Logits, NDArray[np.int64], NDArray[np.int64] | None], NDArray[np.float32]]
"""From logits, places among their [rows * context] (None: all) and as many targets, to losses [targets].

Takes one private copy of the logits first.
"""


def loss_function(device: str) -> LossOf:
    """By numpy on a CPU, where importing torch would cost more than the sums; by torch on a GPU."""

    def on_host(logits: Logits, targets: NDArray[np.int64], places: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if logits.kind == wire.BFLOAT16:
            halves = _private(np.frombuffer(logits.raw, np.uint16), logits.vocab, places)
            return bits.losses(bits.widen(halves), targets)
        return bits.losses(_private(np.frombuffer(logits.raw, np.float32), logits.vocab, places), targets)

    def on_device(logits: Logits, targets: NDArray[np.int64], places: NDArray[np.int64] | None) -> NDArray[np.float32]:
        import torch

        dtype = torch.bfloat16 if logits.kind == wire.BFLOAT16 else torch.float32
        found = torch.frombuffer(logits.raw, dtype=dtype).view(-1, logits.vocab)
        return bits.losses_on_device(found if places is None else found[torch.from_numpy(places)], targets, device)

    return on_host if device == "cpu" else on_device


class Scoring:
    """One model on the fixed rows: pass 1, then the audit."""

    def __init__(self, rows: TokenRows, spec: dict[str, Any]) -> None:
        context, vocab, self._device = spec["context"], spec["vocab"], spec["device"]
        self._token_bytes = np.asarray(spec["token_bytes"], np.int64)
        self._text = fixed_rows(rows, spec["val_tokens"] // context)
        self._targets = self._text[:, 1:].astype(np.int64)
        self._chunks = chunked(len(self._text), context, vocab)
        self._shape = Shape(max(map(len, self._chunks)), context, vocab)
        self._loss_of = loss_function(self._device)
        self._losses = np.empty(self._targets.shape, np.float32)
        self.seconds: dict[str, float] = {}
        """Of each part, for the log."""
        self._since = time.perf_counter()

    def score(self, sock: socket.socket) -> bits.Tally:
        """Pass 1: the loss of every target. Raises `Refused`."""
        client = self._client(sock)
        for rows in self._chunks:
            targets = self._targets[rows].reshape(-1)
            losses = self._loss_of(client.logits(self._text[rows, :-1]), targets, None)
            self._losses[rows] = _finite(losses).reshape(len(rows), -1)
        client.close()
        tally = bits.Tally(self._token_bytes)
        tally.add(self._losses.reshape(-1), self._targets.reshape(-1))
        self._note("scored")
        return tally

    def audit(self, sock: socket.socket, rng: np.random.Generator) -> Finding:
        """What a fresh server's model shows at secret cuts. Raises `Refused`, also for a model that is not causal."""
        plan = Plan.draw(self._text, self._token_bytes[self._targets] > 0, self._chunks, rng)
        client = self._client(sock, "in the audit, ")
        swapped = self._compare(client, plan, plan.chunks)
        repeated = self._compare(client, plan, plan.repeats)
        client.close()
        self._note("audited")
        finding = Finding.of(swapped, repeated)
        if not finding.causal:
            raise Refused("non_causal", finding.explain())
        if finding.noisy:
            raise Refused("invalid", finding.explain())
        return finding

    def _compare(self, client: Client, plan: Plan, chunks: Sequence[NDArray[np.int64]]) -> Losses:
        """Losses of these chunks as the plan has them, beside those of pass 1, at and near the cuts."""
        parts = []
        for rows in chunks:
            logits, places = client.logits(plan.inputs[rows]), plan.places(rows)
            here = rows[places.rows], places.positions
            flat = places.rows * self._shape.context + places.positions
            losses = _finite(self._loss_of(logits, self._targets[here], flat))
            parts.append(Losses(losses, self._losses[here], places.cut))
        return Losses.joined(parts)

    def _client(self, sock: socket.socket, stage: str = "") -> Client:
        client = Client(sock, self._shape, self._device, stage)
        self._note("built for the audit" if stage else "built")
        return client

    def _note(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what], self._since = now - self._since, now


def measure(
    first: socket.socket, second: socket.socket, rows: TokenRows, spec: dict[str, Any], over: Callable[[], None]
) -> Measured:
    """Score the fixed rows by the first server, and audit by the second. `over` is called between. Raises `Refused`."""
    scoring = Scoring(rows, spec)
    tally = scoring.score(first)
    over()
    finding = scoring.audit(second, np.random.default_rng(secrets.randbits(128)))
    gap = finding.gap * tally.tokens / tally.bytes / math.log(2)
    print(json.dumps(scoring.seconds), file=sys.stderr, flush=True)
    return Measured(tally.bits_per_byte + max(0.0, gap), tally.tokens, tally.bytes, gap, finding.cuts)


def _private(raw: NDArray[Number], vocab: int, places: NDArray[np.int64] | None) -> NDArray[Number]:
    """A copy of the logits at these places, [places, vocab]."""
    logits = raw.reshape(-1, vocab)
    return logits.copy() if places is None else logits[places]


def _finite(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(losses).all():
        raise Refused("invalid", "the logits give a loss that is not finite")
    return losses


def die_with_harness() -> None:
    """Standard input is a lifeline: at its end there is nobody left to score for."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """One JSON argument: shards, sizes, device, and the descriptors of the two servers' sockets."""
    die_with_harness()
    spec = json.loads(sys.argv[1])
    rows = TokenRows([Path(path) for path in spec["shards"]], spec["context"])
    first, second = (socket.socket(fileno=fd) for fd in spec["sockets"])
    try:
        answer = asdict(measure(first, second, rows, spec, lambda: print(json.dumps({"event": "over"}), flush=True)))
    except Refused as refused:
        answer = {"outcome": refused.outcome, "reason": str(refused), "blind": refused.blind}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
