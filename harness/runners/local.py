"""Trials on this machine: which slot each gets, what is tried again, and what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.corpora import load
from harness.errors import HarnessError
from harness.machine import Slot, disk_free_mb
from harness.ruler import parse_budget
from harness.runners import record
from harness.runners.limits import Limits
from harness.runners.places import Places
from harness.runners.trial import LocalTrial
from harness.sandbox.scratch import remove
from harness.scoring.bench import Bench
from harness.summary import block
from harness.types import Job, Outcome, Result, Watch

TRIES = 2
"""Of a trial that was lost by no fault of its own."""
ROOM_MB = 200
"""Free space below which a full disk is the machine's, whatever a trial has done."""


class LocalRunner:
    """Runs trials in the slots it was given."""

    def __init__(
        self,
        bench: Bench,
        budget: str,
        slots: Sequence[Slot],
        scratch: Path,
        arena: str,
        limits: Limits | None = None,
    ) -> None:
        """`scratch` is a folder of this night alone; what an earlier death left in it is removed.

        `arena` is its key: a result that was recorded in another one is not taken up.
        """
        self._arena = arena
        self.bench, self.budget, self.slots = bench, budget, len(slots)
        self.limits = limits or Limits.of(parse_budget(budget), bench.device)
        self._places = Places(slots)
        remove(scratch)
        scratch.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._scratch = scratch

    async def run(self, job: Job, watch: Watch) -> Result:
        """Run one trial to its end, or take it up from its record if it ended before.

        Raises `HarnessError` if the machine cannot go on: the disk is full, the corpus was changed.
        """
        key = record.key(job, self._arena)
        if found := record.read(job.folder, key):
            return found
        self._see_that_the_corpus_stays()
        # Further seeds of an experiment under way go before new experiments: they decide sooner.
        async with self._places.take((job.experiment, job.index)) as slot:
            beside, started = self._places.taken - 1, time.monotonic()
            for _ in range(TRIES):
                result = await self._attempt(job, slot, watch)
                if result.outcome is not Outcome.LOST:
                    break
            result = replace(result, total_seconds=time.monotonic() - started, beside=beside)
            if result.outcome not in (Outcome.LOST, Outcome.DISK):  # another time they may end otherwise
                with contextlib.suppress(OSError):  # a full disk; the ledger has the result all the same
                    (job.folder / "summary.txt").write_text(block(result))
                    record.write(job.folder, key, result)
            return result

    async def _attempt(self, job: Job, slot: Slot, watch: Watch) -> Result:
        scratch: Path | None = None
        try:
            await asyncio.to_thread(remove, job.folder)
            job.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=self._scratch, prefix="trial-"))
            trial = LocalTrial(self.bench, self.budget, self.limits, job, slot, scratch, watch)
            result = await trial.run()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise HarnessError(f"Trial {job.name} cannot be run: {error}", f"Look at {job.folder}.") from error
            result = Result(Outcome.DISK, f"no space was left: {error.filename or job.folder}")
        finally:
            if scratch is not None:
                await asyncio.to_thread(remove, scratch)
        if result.outcome is Outcome.DISK:
            # The trial's own files are gone by now: if there is still no room, every other would fail as well.
            for folder in (job.folder, self._scratch):
                if disk_free_mb(folder) < ROOM_MB:
                    raise HarnessError(f"The disk is full at {folder}.", "Make room, and start again.")
        return result

    def _see_that_the_corpus_stays(self) -> None:
        """Raise `HarnessError` if it was rebuilt since this runner was made: its scores would not compare."""
        now = load(self.bench.corpus.folder).identity
        if now != self.bench.corpus.identity:
            raise HarnessError(
                f"The corpus was rebuilt in mid-night: it was {self.bench.corpus.identity} and is {now}.",
                "Begin another series with --tag; what is finished stays.",
            )
