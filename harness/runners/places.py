"""Who runs next, and where: the slots of a runner, handed out by rank."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from harness.machine import Slot


class Places:
    """Slots that trials wait for. Of those that wait, the lowest rank is served first, then the earliest."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free = list(reversed(slots))
        self._waiting: list[tuple[tuple[int, ...], int, asyncio.Future[Slot]]] = []
        self._order = count()
        self.taken = 0

    @asynccontextmanager
    async def take(self, rank: tuple[int, ...]) -> AsyncIterator[Slot]:
        """Hold a slot for the length of the block."""
        if self._free:
            slot = self._free.pop()
        else:
            turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._order), turn))
            try:
                slot = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it was ours already
                    self._give(turn.result())
                raise
        self.taken += 1
        try:
            yield slot
        finally:
            self.taken -= 1
            self._give(slot)

    def _give(self, slot: Slot) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(slot)
                return
        self._free.append(slot)
