"""What a trial leaves is taken without trusting it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.scoring.artifact import BadArtifact, check_config, parameters, take, take_checkpoint


def leave(folder: Path, config: object = None) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"dim": 64} if config is None else config))


def test_a_sparse_file_that_its_header_does_not_fill_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    leave(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 1 << 32)
    with pytest.raises(BadArtifact, match="parameters"):
        take_checkpoint(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept/model.safetensors").exists()


def test_parameters_are_counted_from_the_header(tmp_path: Path) -> None:
    leave(tmp_path)
    assert take_checkpoint(tmp_path, tmp_path / "kept") == 17
    assert (tmp_path / "kept/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadArtifact, match="cannot be opened"):
        take(tmp_path / "link", tmp_path / "kept", 100)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadArtifact, match="no regular file"):
        take(tmp_path / "fifo", tmp_path / "kept", 100)


def test_a_sparse_terabyte_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadArtifact, match="at most 100"):
        take(tmp_path / "huge", tmp_path / "kept", 100)
    assert not (tmp_path / "kept").exists()


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


BROKEN = {
    "empty": b"",
    "a pickle": b"\x80\x04pickle",
    "a length beyond the file": b"\xff" * 64,
    "no JSON": header("not json"),
    "no object": header("[]"),
    "no tensor": header("{}"),
    "negative sizes": header('{"a": {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]}}'),
    "sizes in words": header('{"a": {"dtype": "F32", "shape": ["5"], "data_offsets": [0, 20]}}'),
    "an infinite size": header('{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 20]}}'),
    "a size of thirty digits": header('{"a": {"dtype": "F32", "shape": [1' + "0" * 30 + "]}}"),
    "a size of four thousand digits": header('{"a": {"shape": [' + "9" * 4000 + "]}}"),
    "many dimensions": header('{"a": {"shape": [' + "2," * 5000 + "1]}}"),
    "deep nesting": header("[" * 60_000),
    "more parameters than bytes": header('{"a": {"dtype": "F32", "shape": [1000000]}}'),
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_header_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(BadArtifact, match=r"model\.safetensors"):
        parameters(tmp_path / "model.safetensors")


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"a": [1]}', b'{"a": {}}', b"[" * 60_000], ids=range(5))
def test_a_config_is_a_flat_object(raw: bytes) -> None:
    with pytest.raises(BadArtifact, match=r"config\.json"):
        check_config(raw)
