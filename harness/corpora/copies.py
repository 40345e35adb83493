"""No document, nor a copy of it, in two splits: what is known by the hash of its words."""

from __future__ import annotations

import hashlib


def fingerprint(text: str) -> bytes:
    """Of the words of a document and their order, 16 bytes; empty for a document without words.

    White space does not count: a copy with other line ends or another indentation is a copy.
    """
    words = " ".join(text.split()).encode("utf-8", "replace")
    return hashlib.sha256(words).digest()[:16] if words else b""


class Copies:
    """Which documents stand in the splits that are measured on."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def add(self, document: bytes) -> bool:
        """Remember a fingerprint. False if it was known: the document is a copy."""
        before = len(self._known)
        self._known.add(document)
        return len(self._known) > before

    def __contains__(self, document: bytes) -> bool:
        return document in self._known
