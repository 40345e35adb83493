"""A checkpoint as the trusted side sees it: copied without following it anywhere, and only its header read."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

CONFIG_BYTES = 1 << 16
HEADER_BYTES = 1 << 24
MODEL_BYTES = 1 << 33
"""A model of 2 G parameters in fp32; beyond it the file is no model of this budget."""


class BadArtifact(Exception):
    """What a trial left cannot be taken; the text says which file and why."""


def take(source: Path, target: Path, limit: int) -> int:
    """Copy a regular file of at most `limit` bytes out of an untrusted folder; returns its size.

    A FIFO would hang `open`, a symlink would lead out of the folder, a sparse file would fill the disk: all are
    refused (docs/trust.md). Raises `BadArtifact`; an `OSError` is ours (a full disk, say).
    """
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadArtifact(f"{source.name} is missing") from None
    except OSError as error:
        raise BadArtifact(f"{source.name} cannot be opened: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadArtifact(f"{source.name} is no regular file")
        if found.st_size > limit:
            raise BadArtifact(f"{source.name} has {found.st_size} bytes; at most {limit} are taken")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            left = found.st_size
            while left and (piece := file.read(min(left, 1 << 20))):
                copy.write(piece)
                left -= len(piece)
    return found.st_size


def take_checkpoint(source: Path, target: Path) -> int:
    """Copy `config.json` and `model.safetensors`; returns the number of parameters. Raises `BadArtifact`."""
    take(source / "config.json", target / "config.json", CONFIG_BYTES)
    check_config((target / "config.json").read_bytes())
    take(source / "model.safetensors", target / "model.safetensors", MODEL_BYTES)
    return parameters(target / "model.safetensors")


def check_config(raw: bytes) -> None:
    """The config must be a flat JSON object: what `build_model` gets."""
    try:
        config = json.loads(raw)
    except ValueError as error:
        raise BadArtifact(f"config.json is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadArtifact("config.json is no object")
    for name, value in config.items():
        if isinstance(value, dict | list):
            raise BadArtifact(f"config.json is not flat: {name[:80]!r} holds a {type(value).__name__}")


def parameters(path: Path) -> int:
    """Elements of all tensors by the header of a safetensors file (8 bytes of length, then JSON).

    The format: https://github.com/huggingface/safetensors. Tensors are not read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= HEADER_BYTES:
            raise BadArtifact(f"model.safetensors has a header of {length} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        count = sum(math.prod(int(size) for size in shape) for shape in shapes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadArtifact(f"model.safetensors has a header that cannot be read: {error}") from None
    if count <= 0 or any(size < 0 for shape in shapes for size in shape):
        raise BadArtifact("model.safetensors holds no parameters")
    return count
