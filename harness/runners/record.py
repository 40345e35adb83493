"""`result.json`: the result of a trial beside its evidence, so that a finished trial is never run twice."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from harness.types import Job, Outcome, Result

NAME = "result.json"


def key(job: Job, arena: str) -> str:
    """Names what was run: text, ruler, seed, and the key of the arena."""
    parts = [job.source, job.ruler, str(job.seed), arena]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def write(folder: Path, key: str, result: Result) -> None:
    """Atomically; the folder must exist."""
    temporary = folder / (NAME + ".part")
    with temporary.open("w") as file:
        json.dump({"key": key, **asdict(result)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)


def read(folder: Path, key: str) -> Result | None:
    """The result that lies there, if it is of this very trial; None if there is none or it cannot be read."""
    try:
        found = json.loads((folder / NAME).read_text())
        if found.pop("key") != key or found.keys() != {field.name for field in fields(Result)}:
            return None
        found["outcome"] = Outcome(found["outcome"])
        return Result(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
