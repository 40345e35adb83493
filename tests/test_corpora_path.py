"""A corpus of the user's own files: what is read, how it is cut and dealt, and what is said of bad ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.corpora.copies import fingerprint
from harness.corpora.documents import documents
from harness.corpora.path import TextFiles
from harness.errors import CorpusError


def paragraph(number: int) -> str:
    return f"Paragraph {number}: {number**2} sheep, {number**3 % 1009} goats.\n" * 3 + "\n"


def prose(kilobytes: int) -> str:
    """So much text in paragraphs, none like another."""
    return "".join(paragraph(n) for n in range(kilobytes * 9))[: kilobytes * 1000]


def record(number: int) -> str:
    return f"record {number} says {number * 7919 % 10007} " * 12


def write_jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    return path


def dealt(path: Path) -> dict[str, list[str]]:
    """The documents of each split."""
    splits: dict[str, list[str]] = {"train": [], "val": [], "holdout": []}
    for unit in TextFiles(path).units():
        splits[unit.split] += unit.documents()
    return splits


def test_one_large_text_is_cut_and_no_character_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    text = prose(1000).replace("goats.\n", "goats.\r\n")
    path.write_bytes(text.encode())
    splits = dealt(path)
    everything = [piece for pieces in splits.values() for piece in pieces]
    assert sorted(everything) == sorted(documents(path, len(text) // 256))
    assert "".join(documents(path, len(text) // 256)) == text
    assert all(70_000 < sum(map(len, splits[split])) < 130_000 for split in ("val", "holdout"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    pieces=st.lists(st.sampled_from(["a", "é", "\n", "\n\n", "\r\n", " ", "word ", "日本", "x" * 90]), max_size=200),
    length=st.integers(1, 60),
)
def test_cutting_keeps_every_character_and_the_bound(tmp_path: Path, pieces: list[str], length: int) -> None:
    path = tmp_path / "text.md"
    text = "".join(pieces)
    path.write_bytes(text.encode())
    cut = list(documents(path, length))
    assert "".join(cut) == text
    assert all(0 < len(piece) <= 4 * length for piece in cut)


def test_texts_are_cut_at_the_ends_of_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(100) + "\n\n")
    assert all(piece.endswith("\n\n") for piece in documents(path, 2000))


def test_a_character_across_two_reads_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.corpora.documents.BLOCK", 3)
    path = tmp_path / "text.txt"
    path.write_text("aé日🙂 bcd 🙂🙂", "utf-8")
    assert "".join(documents(path, 100)) == "aé日🙂 bcd 🙂🙂"


def test_a_line_without_end_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("x" * 3_000_001)
    assert sum(map(len, documents(path, 10_000))) == 3_000_001
    assert max(map(len, documents(path, 10_000))) <= 40_000


def test_every_document_is_in_one_split_and_copies_go_together(tmp_path: Path) -> None:
    texts = [record(n) for n in range(2000)]
    path = write_jsonl(tmp_path / "data.jsonl", [*texts, *(f" {text}\n" for text in texts)])
    splits = {split: {fingerprint(text) for text in found} for split, found in dealt(path).items()}
    assert not splits["train"] & splits["val"]
    assert not splits["train"] & splits["holdout"]
    assert not splits["val"] & splits["holdout"]
    assert set().union(*splits.values()) == set(map(fingerprint, texts))


def test_the_split_of_a_document_does_not_depend_on_the_file_it_stands_in(tmp_path: Path) -> None:
    texts = [record(n) for n in range(1500)]
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    write_jsonl(one / "all.jsonl", texts)
    for part in range(5):
        write_jsonl(many / f"{part}.jsonl", texts[part::5])
    assert {s: sorted(t) for s, t in dealt(one).items()} == {s: sorted(t) for s, t in dealt(many).items()}


def test_a_large_corpus_is_dealt_by_chance_two_per_cent_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.corpora.path.LARGE", 1000)
    splits = dealt(write_jsonl(tmp_path / "data.jsonl", (record(n) for n in range(5000))))
    assert 60 < len(splits["val"]) < 140
    assert 60 < len(splits["holdout"]) < 140
    assert sum(map(len, splits.values())) == 5000


def test_all_kinds_in_a_folder_are_read_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.txt").write_text("from txt " * 3)
    (folder / "deep" / "b.MD").write_text("from md " * 3)
    write_jsonl(folder / "deep" / "er" / "c.jsonl", ["from jsonl " * 3, *(record(n) for n in range(1500))])
    parquet.write_table(arrow.table({"text": ["from parquet " * 3, None], "n": [1, 2]}), folder / "d.parquet")
    (folder / ".git" / "e.txt").write_text("from hidden folder")
    (folder / ".f.txt").write_text("from hidden file")
    (folder / "g.py").write_text("from python")
    (folder / "loop").symlink_to(folder)
    words = {text.split()[1] for texts in dealt(folder).values() for text in texts if text.startswith("from")}
    assert words == {"txt", "md", "jsonl", "parquet"}


def test_parquet_is_read_in_order_over_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    texts = [record(n) for n in range(1000)]
    parquet.write_table(arrow.table({"text": arrow.array(texts, arrow.large_string())}), path, row_group_size=300)
    assert list(documents(path, 10)) == texts


def test_units_of_many_files_are_read_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.corpora.path.ONE_UNIT", 200_000)
    for part in range(6):
        write_jsonl(tmp_path / f"{part}.jsonl", (record(1000 * part + n) for n in range(300)))
    train = [unit for unit in TextFiles(tmp_path).units() if unit.split == "train"]
    assert [unit.name for unit in train] == ["0.jsonl and 1 more", "2.jsonl and 1 more", "4.jsonl and 1 more"]


def test_the_stamp_tells_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(10))
    before = TextFiles(path).stamp()
    assert TextFiles(path).stamp() == before
    path.write_text(prose(11))
    assert TextFiles(path).stamp() != before


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        dealt(path)
    assert str(path) in caught.value.problem
    assert caught.value.mend


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good \xff bad", "not UTF-8 text: see byte 5"),
        ("a.txt", b"\x7fELF\0\0\0", "binary file"),
        ("a.md", "text".encode("utf-16"), "binary file"),
        ("a.txt", b"cut in a character \xc3", "not UTF-8 text: see byte 19"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', "line 3: no JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "line 2: no field `text`"),
        ("a.jsonl", b'["text"]\n', "line 1: no field `text`"),
        ("a.jsonl", b'{"text": 7}\n', "line 1: `text` is int"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1: no JSON"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("a.pdf", b"%PDF", r"none of \.jsonl, \.md, \.parquet, \.txt"),
        ("a.txt", b"", "no text"),
        ("a.txt", b" \n\n", "no text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_place_and_mend(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path / name, message)


def test_a_parquet_file_without_the_column_is_named(tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"content": ["x"]}), tmp_path / "a.parquet")
    assert_refused(tmp_path / "a.parquet", "no column `text`")


def test_a_parquet_column_of_numbers_is_refused(tmp_path: Path) -> None:
    parquet.write_table(arrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
    assert_refused(tmp_path / "a.parquet", "int64, no text")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, r"has no \.jsonl, \.md, \.parquet, \.txt")


def test_too_little_text_is_refused_with_the_figure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(prose(100))
    with pytest.raises(CorpusError, match=r"100 kB of text.*val would have 10 kB, and needs 32") as caught:
        dealt(tmp_path / "a.txt")
    assert caught.value.mend == "Add text: 320 kB is the least."


def test_the_least_text_that_is_named_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(prose(321))
    splits = dealt(tmp_path / "a.txt")
    assert all(sum(map(len, splits[split])) >= 32_000 for split in ("val", "holdout"))


def test_two_documents_cannot_be_dealt_to_three_splits(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["x y " * 100_000, "z " * 100_000])
    assert_refused(tmp_path / "a.jsonl", "The 2 documents of")
