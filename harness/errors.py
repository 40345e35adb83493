"""The exceptions of the harness: each says what is wrong, where, and what to do.

An expected failure of an experiment is no exception but data (see `types.Outcome`); these are for what stops
a command, or a proposal, before there is a result.
"""


class HarnessError(Exception):
    """Base of all that a command prints as an error. `mend` is the sentence that says what to do about it."""

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(f"{problem}\n  {mend}" if mend else problem)
        self.problem = problem
        self.mend = mend


class UsageError(HarnessError):
    """An option has a value that cannot work."""


class GitError(HarnessError):
    """The checkout cannot be used, or git refused."""


class LedgerError(HarnessError):
    """The ledger cannot be read or written, or belongs to another version or arena."""


class LockedError(LedgerError):
    """Another harness works on this tag."""


class CorpusError(HarnessError):
    """A corpus cannot be found, read, fetched or prepared."""


class ContractError(HarnessError):
    """A `train.py` or `prepare.py` does not keep its contract; the message names the line."""


class SandboxError(HarnessError):
    """No process can be started as it must be."""


class NoProposal(HarnessError):
    """A researcher has nothing to propose this time; the experiment ends as `no_proposal` with this reason."""
