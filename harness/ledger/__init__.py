"""The ledger: every experiment, attempt and trial in one SQLite file, the source of truth."""

from harness.ledger.store import Confirmation, Ledger, Series

__all__ = ["Confirmation", "Ledger", "Series"]
