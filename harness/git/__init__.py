"""Commits, refs and notes of a series, made beside the user's work: branch, index and files stay as they are.

All is written with git's plumbing straight into the object store, so neither filters nor line-end conversion,
hooks, signing nor the user's identity come into play.
"""

from harness.git.repository import Repository, message

__all__ = ["Repository", "message"]
