"""A checkpoint as the trusted side sees it: copied without following it anywhere, and only its header read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.text import open_untrusted

CONFIG_BYTES = 1 << 16
HEADER_BYTES = 1 << 24
WIDEST = 8
"""Bytes of one parameter at most."""
MODEL_BYTES = 1 << 34
"""A model of 4 G parameters in fp32; beyond it the file is no model of this budget."""


class BadArtifact(Exception):
    """What a trial left cannot be taken; the text says which file and why."""


class Missing(BadArtifact):
    """It left no such file."""


@contextlib.contextmanager
def opened(source: Path, limit: int) -> Iterator[BinaryIO]:
    """A regular file of at most `limit` bytes in an untrusted folder, open for reading.

    A FIFO would hang `open`; a link, or a folder that is one, would lead to another's files; a huge file would fill
    the disk: all are refused (docs/trust.md). Raises `BadArtifact`.
    """
    try:
        fd = open_untrusted(source)
    except FileNotFoundError:
        raise Missing(f"{source.name} is missing") from None
    except OSError as error:
        raise BadArtifact(f"{source.name} cannot be opened: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadArtifact(f"{source.name} is no regular file")
        if found.st_size > limit:
            raise BadArtifact(f"{source.name} has {found.st_size} bytes; at most {limit} are taken")
        yield file


def take(source: Path, target: Path, limit: int) -> None:
    """Copy a regular file out of an untrusted folder. Raises `BadArtifact`; an `OSError` is ours (a full disk)."""
    with opened(source, limit) as file:
        _copy(file, target, limit)


def take_checkpoint(source: Path, target: Path) -> int:
    """Copy `config.json` and `model.safetensors`; returns the number of parameters. Raises `BadArtifact`."""
    take(source / "config.json", target / "config.json", CONFIG_BYTES)
    check_config((target / "config.json").read_bytes())
    with opened(source / "model.safetensors", MODEL_BYTES) as file:
        count = _count(file)
        file.seek(0)
        _copy(file, target / "model.safetensors", MODEL_BYTES)
    return count


def parameters(path: Path) -> int:
    """Elements of all tensors of a safetensors file. Raises `BadArtifact`."""
    with opened(path, MODEL_BYTES) as file:
        return _count(file)


def check_config(raw: bytes) -> None:
    """The config must be a flat JSON object: what `build_model` gets."""
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"config.json is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadArtifact("config.json is no object")
    for name, value in config.items():
        if isinstance(value, dict | list):
            raise BadArtifact(f"config.json is not flat: {name[:80]!r} holds a {type(value).__name__}")


def _count(file: BinaryIO) -> int:
    """Elements of all tensors, by the header: 8 bytes of its length, then JSON. Tensors are not read.

    The format: https://github.com/huggingface/safetensors.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(HEADER_BYTES, size - 8):
        raise BadArtifact(f"model.safetensors has a header of {length} bytes")
    try:
        header = json.loads(file.read(length))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        count = sum(_elements(shape, size) for shape in shapes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadArtifact(f"model.safetensors has a header that cannot be read: {str(error)[:200]}") from None
    data = size - 8 - length
    if not 0 < count <= data <= WIDEST * count:
        raise BadArtifact(f"model.safetensors says that it holds {count} parameters, and has {data} bytes of data")
    return count


def _elements(shape: object, most: int) -> int:
    """Product of the sizes. Raises ValueError for what is no shape of at most `most` elements."""
    if not isinstance(shape, list) or len(shape) > 16:
        raise ValueError("a shape is a list of at most 16 sizes")
    if any(type(size) is not int or not 0 <= size <= most for size in shape):
        raise ValueError("a size is a whole number that the file has room for")
    return math.prod(shape)


def _copy(file: BinaryIO, target: Path, limit: int) -> None:
    """At most `limit` bytes, though the file may still grow."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        while limit and (piece := file.read(min(limit, 1 << 20))):
            copy.write(piece)
            limit -= len(piece)
