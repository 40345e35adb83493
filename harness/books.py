"""The driver's pen: what a night writes to ledger, git, results.tsv and workspace, in the order that survives a death.

The ledger is right and the others follow it. All of it is called from one thread, and nothing of it waits.
"""

from __future__ import annotations

import contextlib
import hashlib

from harness import tsv
from harness.errors import GitError
from harness.git import Repository, message
from harness.history import Past
from harness.hyperparameters import fingerprint
from harness.ledger import Ledger
from harness.settings import Settings
from harness.types import Arena, Experiment, Proposal, Verdict, View


class Books:
    """Rows, commits, refs and notes of one tag."""

    def __init__(self, settings: Settings, arena: Arena, ledger: Ledger, repository: Repository, view: View) -> None:
        self._settings, self._arena, self._view = settings, arena, view
        self._ledger, self._repository = ledger, repository
        self._tag = settings.tag
        self.past = Past(ledger, settings.tag, settings.scale)
        self._heavy = {experiment.id for experiment in ledger.experiments(settings.tag)}
        """Experiments that may still have checkpoints."""

    def reconcile(self) -> None:
        """Make ledger and git agree after any death. Raises `GitError` where the branch cannot follow."""
        lost = self._ledger.abandon(self._tag)
        if lost:
            self._view.say(f"{trials(lost)} of the last run had no result: to be run again")
        self._follow(self.past.incumbent())
        noted = self._repository.noted()
        for experiment in self._ledger.experiments(self._tag):
            if experiment.verdict and experiment.commit not in noted:
                self._note(experiment)
        self._list()

    def program_hash(self) -> str:
        """Of program.md as it is now; "" if it cannot be read."""
        try:
            return hashlib.sha256((self._settings.root / "program.md").read_bytes()).hexdigest()[:12]
        except OSError:
            return ""

    def open(self, proposal: Proposal, researcher: str, program_hash: str) -> Experiment:
        """Give a proposal its row and number, before any work on it."""
        experiment = self._ledger.open_experiment(
            self._tag,
            self._arena.key,
            proposal.parent,
            proposal.title,
            proposal.hypothesis,
            proposal.category,
            researcher,
            program_hash,
            proposal.expected_gain,
            proposal.usage,
        )
        self._view.experiment_opened(experiment)
        return experiment

    def commit(self, experiment: Experiment, source: str) -> None:
        """Commit a text onto its parent's commit, and keep it in the ledger too."""
        assert experiment.parent is not None
        parent = self._ledger.experiment(self._tag, experiment.parent).commit
        assert parent is not None
        text = message(experiment.title, experiment.hypothesis, experiment.id, self._tag, experiment.researcher)
        commit = self._repository.commit(self._tag, experiment.id, 1, parent, source, text)
        self._ledger.add_attempt(self._tag, experiment.id, commit, source, fingerprint(source))

    def settle(self, experiment: Experiment, verdict: Verdict, reason: str, gain: float | None) -> None:
        """Write the verdict; everything else follows it."""
        judged = self._ledger.judge(self._tag, experiment.id, verdict, reason, gain)
        try:
            self._note(judged)
            if verdict is Verdict.KEEP:
                self._follow(judged)
        except GitError as error:  # a hand has moved the branch, say: no reason to end the night
            self._view.say(f"Git stays behind until the next start. {error}")
            self._ledger.event(self._tag, "git", str(error))
        self._clear(judged)
        self._list()
        self._view.experiment_judged(judged)

    def merge(self, base: str, ours: str, theirs: str) -> str | None:
        """Three-way merge of texts; None where they conflict."""
        return self._repository.merge(base, ours, theirs)

    def _follow(self, incumbent: Experiment) -> None:
        """Move the branch to the incumbent, and show it in the workspace."""
        assert incumbent.commit is not None
        self._repository.advance(self._tag, incumbent.commit)
        shown = self._settings.workspace / "train.py"
        with contextlib.suppress(OSError):  # only to look at
            shown.parent.mkdir(parents=True, exist_ok=True)
            shown.write_text(self.past.source(incumbent.id), encoding="utf-8", newline="")

    def _note(self, judged: Experiment) -> None:
        """Write score and verdict beside the commit."""
        if judged.commit:
            score = "" if judged.val_bpb is None else f"val_bpb: {judged.val_bpb:.6f}\n"
            text = f"{score}verdict: {judged.verdict}\nreason: {judged.reason}\n"
            self._repository.note(judged.commit, text)

    def _list(self) -> None:
        tsv.write(self._settings.results / "results.tsv", self._ledger.experiments(self._tag))

    def _clear(self, judged: Experiment) -> None:
        """Remove the checkpoints that nobody will ask for: all but the incumbent's and the runner-up's."""
        self._heavy.add(judged.id)
        incumbent = self.past.incumbent().id
        held = [self._ledger.experiment(self._tag, number) for number in self._heavy - {incumbent}]
        ended = sorted((e for e in held if e.verdict), key=lambda e: (e.val_bpb is None, e.val_bpb))
        for experiment in ended[1 if ended and ended[0].val_bpb is not None else 0 :]:
            for weights in self._settings.folder(experiment.id).glob("a*-s*/checkpoint/model.safetensors"):
                with contextlib.suppress(OSError):
                    weights.unlink()
            self._heavy.discard(experiment.id)


def trials(count: int) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} trial" + ("" if count == 1 else "s")
