"""The tokenizer: every byte of every text is counted, once."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpora.tokenizer import SEPARATOR, Tokenizer, cleaned
from harness.errors import CorpusError

AWKWARD = {
    "nothing": "",
    "emoji": "a 👩‍👩‍👧‍👦 family 🏳️‍🌈 and flags 🇩🇪🇫🇷",
    "line ends": "one\r\ntwo\rthree\n\r\n\n\n",
    "nul": "a\0b\0\0",
    "controls": "\x01\x02\x7f\x85\u2028\u2029\ufeff",
    "scripts": "日本語 العربية עברית हिन्दी ไทย",
    "combining": "e\u0301 a\u030a",
    "numbers": "1 12 123 1234567890 3.14159 ½ Ⅷ",
    "its separator": f"text {SEPARATOR} text{SEPARATOR}",
    "a million spaces": " " * 1_000_000 + "x",
    "a million letters": "a" * 1_000_000,
    "a million line ends": "\n" * 1_000_000,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = Path(sysconfig.get_path("stdlib"))
    return Tokenizer.train((p.read_text("utf-8") for p in sorted(folder.glob("[a-f]*.py"))), 1024)


def assert_exact(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode([text])
    assert tokens[0] == tokenizer.separator
    assert tokenizer.token_bytes()[tokens].sum() == len(text.encode("utf-8", "replace"))
    assert tokenizer.decode(tokens) == text.encode("utf-8", "replace")


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_token_bytes_add_up_to_the_bytes_of_an_awkward_text(tokenizer: Tokenizer, text: str) -> None:
    assert_exact(tokenizer, text)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec=None, exclude_categories=())))
def test_token_bytes_add_up_to_the_bytes_of_any_text_surrogates_included(tokenizer: Tokenizer, text: str) -> None:
    assert_exact(tokenizer, text)


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert cleaned("a\ud800b\udfff") == "a?b?"


def test_each_document_begins_with_the_separator_and_holds_no_other(tokenizer: Tokenizer) -> None:
    texts = [f"first {SEPARATOR}", "", "third"]
    tokens = tokenizer.encode(texts)
    starts = np.flatnonzero(tokens == tokenizer.separator)
    pieces = [tokenizer.decode(piece).decode() for piece in np.split(tokens, starts)[1:]]
    assert pieces == texts


def test_the_separator_alone_has_no_bytes(tokenizer: Tokenizer) -> None:
    sizes = tokenizer.token_bytes()
    assert sizes.dtype == np.int64
    assert np.flatnonzero(sizes == 0).tolist() == [tokenizer.separator] == [tokenizer.vocab - 1]


def test_a_text_too_small_for_the_vocabulary_leaves_ids_unused(tokenizer: Tokenizer) -> None:
    small = Tokenizer.train(["ab ab"], 2048)
    assert small.vocab == len(small.token_bytes()) == 2048
    assert small.separator == 2047
    assert_exact(small, "ab ab \N{SNOWMAN}")


def test_training_gives_the_same_tokens_again() -> None:
    texts = [Path(__file__).read_text("utf-8")] * 3
    assert Tokenizer.train(iter(texts), 700).dump() == Tokenizer.train(iter(texts), 700).dump()


def test_what_is_dumped_can_be_parsed_and_encodes_alike(tokenizer: Tokenizer) -> None:
    again = Tokenizer.parse(tokenizer.dump())
    text = AWKWARD["emoji"] + AWKWARD["scripts"] + "def f(x): return x\n"
    assert again.encode([text]).tolist() == tokenizer.encode([text]).tolist()


def test_no_document_is_no_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).tolist() == []


@pytest.mark.parametrize("vocab", [0, 256, 65_537])
def test_a_vocabulary_that_cannot_be_is_refused_with_the_limits(vocab: int) -> None:
    with pytest.raises(CorpusError, match=r"65,536 at most"):
        Tokenizer.train(["text"], vocab)


def test_the_largest_vocabulary_still_fits_a_shard() -> None:
    assert Tokenizer.train(["text"], 65_536).encode(["a"]).tolist() == [65_535, ord("a")]
