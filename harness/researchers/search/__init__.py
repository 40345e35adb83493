"""The embedded researcher: classical search over the ranges that `train.py` names. No key, no network, no cost."""

from __future__ import annotations

from harness.errors import UsageError
from harness.researchers.search.researcher import Search
from harness.settings import Settings

__all__ = ["Search", "create"]


def create(argument: str, settings: Settings) -> Search:
    """A `Search` with the seed of the run. Raises `UsageError` if an argument is given: it takes none."""
    if argument:
        raise UsageError(f"search takes no argument, not {argument!r}", "Write --researcher search.")
    return Search(settings.scale, settings.seed)
