"""Token shards, and the rows that are cut from them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpora.shards import TokenRows, clear_leftovers, write_atomically, write_shard
from harness.errors import CorpusError


def shards(folder: Path, *sizes: int) -> tuple[list[Path], np.ndarray]:
    """Shards of so many tokens, and their concatenation: 0, 1, 2, ..."""
    everything = np.arange(sum(sizes), dtype=np.uint16)
    paths, start = [], 0
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number:05d}.bin")
        write_shard(paths[-1], [everything[start : start + size]])
        start += size
    return paths, everything


def row(rows: TokenRows, index: int) -> list[int]:
    out = np.empty(rows.context + 1, np.uint16)
    rows.copy(index, out)
    return out.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 23), max_size=7), st.integers(1, 17))
def test_rows_are_slices_of_the_concatenation_wherever_shards_end(sizes: list[int], context: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths, everything = shards(Path(folder), *sizes)
        rows = TokenRows(paths, context)
        assert len(rows) == max(0, (sum(sizes) - 1) // context)
        for index in range(len(rows)):
            assert row(rows, index) == everything[index * context : index * context + context + 1].tolist()


def test_every_token_but_the_first_is_a_target_once(tmp_path: Path) -> None:
    paths, everything = shards(tmp_path, 5, 1, 7)
    rows = TokenRows(paths, 4)
    targets = [token for index in range(len(rows)) for token in row(rows, index)[1:]]
    assert targets == everything[1:].tolist()


def test_tokens_lie_on_disk_as_little_endian_uint16(tmp_path: Path) -> None:
    path = tmp_path / "00000.bin"
    write_shard(path, [np.array([1, 0x1234, 0xFFFF], ">u2")])
    assert path.read_bytes() == bytes.fromhex("0100 3412 ffff")


@pytest.mark.parametrize("index", [-1, 3])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path, index: int) -> None:
    paths, _ = shards(tmp_path, 13)
    with pytest.raises(IndexError, match="of 3"):
        row(TokenRows(paths, 4), index)


def test_a_row_is_not_copied_into_an_array_of_another_length(tmp_path: Path) -> None:
    paths, _ = shards(tmp_path, 13)
    with pytest.raises(ValueError, match="a row has 5"):
        TokenRows(paths, 4).copy(0, np.empty(4, np.uint16))


def test_a_shard_cut_inside_a_token_is_named_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "00000.bin"
    path.write_bytes(b"abc")
    with pytest.raises(CorpusError, match=r"00000\.bin is 3 bytes long.*\n.*--rebuild"):
        TokenRows([path], 4)


def test_a_missing_shard_is_a_corpus_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="No such file"):
        TokenRows([tmp_path / "00000.bin"], 4)


def test_the_mapped_tokens_cannot_be_written_to(tmp_path: Path) -> None:
    paths, _ = shards(tmp_path, 9)
    with pytest.raises(ValueError, match="read-only"):
        TokenRows(paths, 4)._maps[0][0] = 7


def test_a_writer_that_fails_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "00000.bin"
    path.write_bytes(b"old")

    def failing() -> Iterator[np.ndarray]:
        yield np.ones(1000, np.uint16)
        raise RuntimeError("no more text")

    with pytest.raises(RuntimeError, match="no more text"):
        write_shard(path, failing())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["00000.bin"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "00000.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "00000.bin", [b"x" * 100_000])
    assert os.listdir(tmp_path) == []


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path) -> None:
    paths, _ = shards(tmp_path, 9)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "00003.bin.part").write_bytes(b"half a sha")
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.bin*")] == [paths[0].name]
