"""Untrusted text, made fit for a terminal, a table or a database: nothing in it is ever obeyed."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from pathlib import Path

_UNUSUAL = re.compile(r"[^\n\t -~]")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def printable(text: str, limit: int) -> str:
    """The text with every character that a terminal could act on written as its escape, as in `\\x1b`.

    Line ends and tabs stay. Control characters, the starts of ANSI and OSC sequences, marks of writing
    direction, invisible characters and lone surrogates do not. At most `limit` characters; `…` is a cut.
    """
    return _cut(_UNUSUAL.sub(_escape, text[: limit + 1].replace("\r\n", "\n")), limit)


def one_line(text: str, limit: int) -> str:
    """Like `printable`, on one line: white space of any kind becomes a single space, none at the ends."""
    head = text[: 4 * limit + 1]
    return _cut(_UNUSUAL.sub(_escape, " ".join(head.split())), limit)


def storable(text: str) -> str:
    """The text with lone surrogates and NUL as escapes: what UTF-8, git and SQLite can hold as it is."""
    return _UNSTORABLE.sub(_escape, text)


def tail_bytes(path: Path, limit: int) -> str:
    """The last `limit` bytes of a file as text; not escaped, see `printable`.

    Raises OSError if it is missing or no regular file.
    """
    with open(open_untrusted(path), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "No regular file", str(path))
        file.seek(max(0, status.st_size - limit))
        return file.read(limit).decode("utf-8", errors="replace")


def open_untrusted(path: Path) -> int:
    """Descriptor of a file that code under test may have made, or whose folder it may have.

    Neither is followed if it is a link, which could lead anywhere, and a FIFO does not block. Raises OSError.
    """
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"
