"""Hands out the batches of one trial, and holds its order, its clock and its counts.

A trusted process beside the trainer, outside its sandbox: `python -m harness.feeder JSON` (see `Orders`). The
trainer, which is hostile until shown otherwise, has one end of a Unix socket and nothing else. It asks with 8
bytes, how many tokens it wants for its next optimizer step, and is answered with 24: status, rows, offset,
progress. The rows themselves, uint16 `[rows, context + 1]`, lie in a sealed memory file which comes with the
first batch and which this process alone can write. It has two slots: while the trainer works on one, the other
is filled, so that the next answer is immediate.

Lines of JSON on standard output tell the runner how the trial fares: `start`, `progress`, then `end` as soon as
the budget is spent (asked or not), `stopped` when the trainer has asked once more and knows that it is over, and
`closed` at the last. This process ends when its standard input closes, and the clock runs until then, whatever the
trainer does to its socket: so work after the end is seen.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.clock import TreeClock
from harness.corpora.shards import TokenRows
from harness.errors import CorpusError, UsageError
from harness.ruler import Budget, parse_budget
from harness.sandbox.memory import READ_ONLY, shared

REQUEST = struct.Struct("<Q")
"""Tokens wanted for the next step: a multiple of the context, at most LARGEST_STEP."""
REPLY = struct.Struct("<IIQd")
"""Status, rows, offset of the first row in bytes, progress in [0, 1]."""
BATCH, END, REFUSED = 0, 1, 2
LARGEST_STEP = 1 << 22
"""Tokens."""
LOOK_SECONDS = 0.05
"""Between two looks at the clock when nobody asks, in the mean. How long it is until the next one never depends on
when the last one was (an exponential distribution): no process can be timed to live between two of them."""
TELL_SECONDS = 0.25
HEAD_START = 10.0
"""CPU seconds before the first batch that cost nothing, for imports and building; what is used beyond them is charged
to a budget of CPU time, since something else must have been learned."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The argument of this process, as a JSON object."""

    shards: Sequence[str]
    """Paths of token shards (`corpora.shards`)."""
    context: int
    seed: int
    budget: str
    root: int
    """Top of the trial's process tree, whose CPU time is counted."""
    socket: int
    """Inherited descriptor of our end."""
    count_root: bool = False
    """The root is the trainer itself, and no supervisor."""


class Order:
    """Row numbers without end: each epoch a fresh permutation of all rows, by seed and epoch alone."""

    def __init__(self, rows: int, seed: int) -> None:
        if rows < 1:
            raise CorpusError("The training shards hold less than one row.", "Use a larger corpus, or a smaller scale.")
        self._rows, self._seed = rows, seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        epoch, index = divmod(position, self._rows)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(self._rows)
            self._epoch = epoch
        return int(self._permutation[index])


class Slots:
    """Two places for a batch in memory that the trainer can map but not change."""

    def __init__(self, context: int) -> None:
        self._width = context + 1
        self.largest_rows = LARGEST_STEP // context
        self._bytes = -(-self.largest_rows * self._width * 2 // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor, self._memory = shared("batches", 2 * self._bytes, READ_ONLY)

    def offset(self, slot: int) -> int:
        """Of the slot's first row, in bytes."""
        return slot * self._bytes

    def rows(self, slot: int, count: int) -> NDArray[np.uint16]:
        """The first `count` rows of a slot, uint16 `[count, context + 1]`, writable."""
        flat = np.frombuffer(self._memory, np.uint16, count * self._width, self.offset(slot))
        return flat.reshape(count, self._width)


class Clock:
    """How much of the budget is spent. Starts when it is made."""

    def __init__(self, budget: Budget, tree: TreeClock | None) -> None:
        """`tree`: of the trainer, since it was started; None unless the budget is of CPU time."""
        self.budget, self._tree = budget, tree
        self._began = min(tree.spent(), HEAD_START) if tree else time.monotonic()

    def seconds(self) -> float:
        """Of the budget's own clock: CPU seconds for `cpu`, else wall seconds."""
        return (self._tree.spent() if self._tree else time.monotonic()) - self._began

    def fraction(self, seconds: float, steps: int) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        spent = steps if self.budget.kind == "steps" else seconds
        return min(1.0, spent / self.budget.amount)


class Feeder:
    """One trial's batches, from the first request to the end."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._budget = parse_budget(orders.budget)
        self._rows = TokenRows([Path(path) for path in orders.shards], orders.context)
        self._order = Order(len(self._rows), orders.seed)
        self._slots = Slots(orders.context)
        self._socket = socket.socket(fileno=orders.socket)
        self._socket.setblocking(False)
        self._clock: Clock | None = None
        counted = self._budget.kind == "cpu"
        self._tree = TreeClock(orders.root, os.getpid(), count_root=orders.count_root) if counted else None
        self._unread = b""
        self._slot = self._filled = 0  # the slot to hand out next, and how many rows lie ready in it
        self._position = 0  # rows handed out
        self._steps = self._tokens = 0
        self._handed_memory = self._ended = self._stopped = False
        self._last_told = 0.0
        self._dice = random.SystemRandom()

    def run(self) -> None:
        """Serve, and watch the clock, until the harness closes our standard input: the trainer has ended."""
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(sys.stdin.fileno(), select.POLLIN)
        while True:
            pause = 1000 * self._dice.expovariate(1 / LOOK_SECONDS) if self._clock else None
            ready = dict(waiting.poll(pause))
            if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4096):
                break
            self._watch()
            if self._socket.fileno() in ready and not self._serve():
                # It gets no more, but the clock runs on: a trainer that hangs up may still be working.
                waiting.unregister(self._socket)
                self._socket.close()
        self._tell("closed")

    def _serve(self) -> bool:
        """Read what the trainer sent and answer it. False once it is gone, or does not read our answers."""
        try:
            received = self._socket.recv(REQUEST.size - len(self._unread))
            self._unread += received
            if len(self._unread) == REQUEST.size:
                (tokens,) = REQUEST.unpack(self._unread)
                self._unread = b""
                self._answer(tokens)
        except BlockingIOError:
            return False  # it asks and asks and never reads what we answer
        except OSError:
            return False
        return bool(received)

    def _answer(self, tokens: int) -> None:
        if tokens % self._orders.context or not 0 < tokens <= LARGEST_STEP:
            self._socket.send(REPLY.pack(REFUSED, 0, 0, 0.0))
            return
        if self._clock is None:
            self._clock = Clock(self._budget, self._tree)
            self._tell("start")
        fraction = self._watch(asked=True)
        if self._ended:
            self._socket.send(REPLY.pack(END, 0, 0, 1.0))
            self._stop()
            return
        self._hand_out(tokens // self._orders.context, fraction)

    def _hand_out(self, rows: int, fraction: float) -> None:
        if self._filled != rows:
            self._fill(rows)
        reply = REPLY.pack(BATCH, rows, self._slots.offset(self._slot), fraction if self._steps else 0.0)
        if self._handed_memory:
            self._socket.send(reply)
        else:
            socket.send_fds(self._socket, [reply], [self._slots.descriptor])
            self._handed_memory = True
        self._steps += 1
        self._tokens += rows * self._orders.context
        self._position += rows
        self._slot = 1 - self._slot
        self._fill(rows)

    def _fill(self, rows: int) -> None:
        """Lay the next rows ready. They count once they are handed out."""
        for index, row in enumerate(self._slots.rows(self._slot, rows)):
            self._rows.copy(self._order[self._position + index], row)
        self._filled = rows

    def _watch(self, asked: bool = False) -> float:
        """Read the clock; tell the runner of progress, and of the end. Returns the fraction spent."""
        if self._clock is None:
            return 0.0
        fraction = self._clock.fraction(self._clock.seconds(), self._steps)
        # The last of so many steps is over when the trainer asks for one more; time runs out by itself.
        over = fraction >= 1 and (asked or self._budget.kind != "steps")
        if over and not self._ended:
            self._ended = True
            self._tell("end")
        elif not self._ended and time.monotonic() - self._last_told >= TELL_SECONDS:
            self._tell("progress")
        return fraction

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._tell("stopped")

    def _tell(self, event: str) -> None:
        self._last_told = time.monotonic()
        line: dict[str, str | float] = {"event": event}
        if event != "start":
            seconds = self._clock.seconds() if self._clock else 0.0
            fraction = self._clock.fraction(seconds, self._steps) if self._clock else 0.0
            line |= {"steps": self._steps, "tokens": self._tokens, "seconds": round(seconds, 4)}
            line["fraction"] = round(fraction, 6)
        print(json.dumps(line), flush=True)


def main() -> int:
    """Serve one trial. Returns the exit code."""
    try:
        Feeder(Orders(**json.loads(sys.argv[1]))).run()
    except BrokenPipeError:  # the runner is gone, and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CorpusError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
