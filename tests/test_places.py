"""Slots are handed out by rank, and none is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from harness.machine import Slot
from harness.runners.places import Places


async def hold(places: Places, rank: int, log: list[int], release: asyncio.Event | None = None) -> None:
    async with places.take((rank,)):
        log.append(rank)
        if release:
            await release.wait()


def test_the_lowest_rank_is_served_first() -> None:
    async def go() -> list[int]:
        places, log, release = Places([Slot((0,))]), list[int](), asyncio.Event()
        tasks = [asyncio.create_task(hold(places, 9, log, release))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(hold(places, rank, log)) for rank in (5, 1, 3)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        return log

    assert asyncio.run(go()) == [9, 1, 3, 5]


def test_one_that_gives_up_as_its_turn_comes_loses_no_slot() -> None:
    async def go() -> int:
        places, log, release = Places([Slot((0,))]), list[int](), asyncio.Event()

        async def first() -> None:
            await hold(places, 0, log, release)
            second.cancel()  # the slot is on its way to it, and it has not run yet

        holder = asyncio.create_task(first())
        await asyncio.sleep(0)
        second = asyncio.create_task(hold(places, 1, log))
        await asyncio.sleep(0)
        release.set()
        await holder
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.wait_for(hold(places, 2, log), 5)
        return places.taken

    assert asyncio.run(go()) == 0
