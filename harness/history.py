"""The past of one tag as a researcher may see it: `types.History` over the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from harness.hyperparameters import fingerprint
from harness.ledger import Ledger
from harness.types import Experiment, Verdict


class Past:
    """Reads the ledger and nothing else. Never shows a confirmation on holdout."""

    def __init__(self, ledger: Ledger, tag: str, scale: str) -> None:
        self._ledger, self.tag, self.scale = ledger, tag, scale

    def experiments(self) -> Sequence[Experiment]:
        return self._ledger.experiments(self.tag)

    def incumbent(self) -> Experiment:
        """The last one kept; the baseline until there is one."""
        experiments = self._ledger.experiments(self.tag)
        kept = [e for e in experiments if e.verdict is Verdict.KEEP and e.id > 0]
        return max(kept, key=lambda e: self.depth(e.id)) if kept else experiments[0]

    def depth(self, experiment: int) -> int:
        """Kept experiments between this one and the baseline. A keep's parent is the keep before it."""
        depth, parent = 0, self._ledger.experiment(self.tag, experiment).parent
        while parent is not None:
            depth, parent = depth + 1, self._ledger.experiment(self.tag, parent).parent
        return depth

    def source(self, experiment: int) -> str:
        return self._ledger.source(self.tag, experiment)

    def tried(self, source: str) -> int | None:
        return self._ledger.tried(self.tag, fingerprint(source))
