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


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x04pickle",
        b"\xff" * 64,
        (8).to_bytes(8, "little") + b"not json",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (30).to_bytes(8, "little") + b'{"a": {"shape": [-4, -4]}}    ',
    ],
)
def test_a_broken_header_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(BadArtifact, match=r"model\.safetensors"):
        parameters(tmp_path / "model.safetensors")


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"a": [1]}', b'{"a": {}}'])
def test_a_config_is_a_flat_object(raw: bytes) -> None:
    with pytest.raises(BadArtifact, match=r"config\.json"):
        check_config(raw)
