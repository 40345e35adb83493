"""The past of one tag as a researcher may see it: `types.History` over the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from harness.hyperparameters import fingerprint
from harness.ledger import Ledger
from harness.standings import incumbent
from harness.types import Experiment


class Past:
    """Reads the ledger and nothing else. Never shows a confirmation on holdout."""

    def __init__(self, ledger: Ledger, tag: str, scale: str) -> None:
        self._ledger, self.tag, self.scale = ledger, tag, scale

    def experiments(self) -> Sequence[Experiment]:
        return self._ledger.experiments(self.tag)

    def incumbent(self) -> Experiment:
        """The last one kept; the baseline until there is one."""
        experiments = self._ledger.experiments(self.tag)
        return incumbent(experiments) or experiments[0]

    def source(self, experiment: int) -> str:
        return self._ledger.source(self.tag, experiment)

    def tried(self, source: str) -> int | None:
        return self._ledger.tried(self.tag, fingerprint(source))
