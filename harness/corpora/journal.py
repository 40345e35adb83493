"""What of a preparation is done, so that one that was interrupted goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.corpora.manifest import Shard
from harness.corpora.shards import clear_leftovers, write_atomically

JOURNAL = "journal.jsonl"


class Journal:
    """One line for the plan, then one for each finished shard; a line that was cut short counts for nothing."""

    def __init__(self, folder: Path, plan: str) -> None:
        """Open `folder` for this plan; what another plan left there is removed. Hold the folder's lock."""
        self.folder = folder
        self.path = folder / JOURNAL
        self._done: dict[str, Shard] = {}
        lines = list(self._lines())
        if lines[:1] == [{"plan": plan}]:
            self._done = {shard.file: shard for shard in (Shard(**line) for line in lines[1:])}
            clear_leftovers(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        kept = [{"plan": plan}, *(asdict(shard) for shard in self._done.values())]
        write_atomically(self.path, (_line(entry) for entry in kept))

    def finished(self, file: str, unit: str) -> Shard | None:
        """The shard, if it was written from this unit before and is there whole."""
        shard, path = self._done.get(file), self.folder / file
        whole = shard is not None and shard.unit == unit and path.is_file() and path.stat().st_size == shard.size
        return shard if whole else None

    def record(self, shard: Shard) -> None:
        """Note a finished shard, on the disk before this returns."""
        self._done[shard.file] = shard
        with self.path.open("ab") as file:
            file.write(_line(asdict(shard)))
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """The preparation is complete."""
        self.path.unlink()

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            text = self.path.read_text()
        except (OSError, UnicodeDecodeError):
            return
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return


def _line(entry: object) -> bytes:
    return json.dumps(entry).encode() + b"\n"
