"""Untrusted text: nothing in it reaches a terminal as a command."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.text import one_line, printable, storable, tail_bytes

ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
HOSTILE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANY)
def test_no_character_that_acts_on_a_terminal_is_left(text: str) -> None:
    assert not [c for c in printable(text, 10_000) if c not in "\n\t" and unicodedata.category(c) in HOSTILE]
    assert not [c for c in one_line(text, 10_000) if unicodedata.category(c) in HOSTILE]


@given(ANY, st.integers(1, 50))
def test_no_text_is_longer_than_its_limit(text: str, limit: int) -> None:
    assert len(printable(text, limit)) <= limit
    assert len(one_line(text, limit)) <= limit


@given(ANY)
def test_what_is_made_storable_is_utf8_without_nul(text: str) -> None:
    assert b"\0" not in storable(text).encode()


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\n", "a\tb", "é à 木 🎈 \u00a0", "[bold]x[/bold] \\"])
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert printable(text, 100) == text
    assert storable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]8;;http://evil\x07click", "\\x1b]8;;http://evil\\x07click"),
        ("\x9b2J", "\\x9b2J"),
        ("50%\r100%", "50%\\r100%"),
        ("a\r\nb", "a\nb"),
        ("\u202eevil\u2069", "\\u202eevil\\u2069"),
        ("\ud800", "\\ud800"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_act_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text, 100) == shown


def test_a_line_is_one_line() -> None:
    assert one_line("  a\n\tb\u2028c\x0bd  \r\n", 100) == "a b c d"


def test_a_cut_is_shown() -> None:
    assert printable("x" * 11, 10) == "x" * 9 + "…"
    assert one_line("x" * 10, 10) == "x" * 10


def test_a_long_text_costs_what_its_limit_says() -> None:
    assert len(printable("\x1b" * 50_000_000, 100)) == 100


def test_the_tail_of_a_file_is_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000 + b"\xff end")
    assert tail_bytes(path, 5) == "\ufffd end"
    assert len(tail_bytes(path, 5000)) == 1005
    (tmp_path / "empty").touch()
    assert tail_bytes(tmp_path / "empty", 5) == ""


def test_a_link_is_not_followed_and_a_fifo_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "missing", "."):
        with pytest.raises(OSError, match=r"."):
            tail_bytes(tmp_path / name, 100)
