"""Who proposes experiments: a registry of kinds, each in a module of its own that is imported when asked for."""

from __future__ import annotations

import difflib
import importlib

from harness.errors import UsageError
from harness.settings import Settings
from harness.types import Researcher

KINDS: dict[str, str] = {
    "search": "harness.researchers.search",
}
"""Kind to the module that has `create(argument: str, settings: Settings) -> Researcher`."""


def create(name: str, settings: Settings) -> Researcher:
    """The researcher that a specification `KIND[:ARGUMENT]` names.

    The argument is the kind's own affair: a model, a command. Raises `UsageError` for a kind that is not
    known, listing those that are.
    """
    kind, _, argument = name.partition(":")
    if kind not in KINDS:
        nearest = difflib.get_close_matches(kind.lower(), KINDS, n=1, cutoff=0.5)
        guess = f" Did you mean {nearest[0]}?" if nearest else ""
        raise UsageError(f"there is no researcher {kind!r}", f"Known are {', '.join(sorted(KINDS))}.{guess}")
    module = importlib.import_module(KINDS[kind])
    made: Researcher = module.create(argument, settings)
    return made
