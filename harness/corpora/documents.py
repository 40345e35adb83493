"""Documents of one file, by its kind: as they stand in it, or cut from a long text at paragraphs."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.corpora.parquet import texts
from harness.errors import CorpusError

BLOCK = 1 << 20
LONGEST_RECORD = 256 << 20
"""Bytes of one line of .jsonl."""
SLACK = 1.5
"""Without the end of a paragraph, a document is cut at the end of a line when it is so many times too long."""
HARD = 4
"""Without the end of a line either, it is cut wherever it is, at so many times the length."""


def documents(file: Path, length: int) -> Iterator[str]:
    """The documents of a file, one at a time in memory. `length`: of the pieces of a text, in characters.

    Raises CorpusError, naming file and place, if it is not what its suffix says.
    """
    try:
        yield from SUFFIXES[file.suffix.lower()](file, length)
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error.strerror or error}.", "Make it readable.") from error


def _text(file: Path, length: int) -> Iterator[str]:
    """A text shorter than `length` as it is; a longer one in pieces, every character in one of them."""
    piece = ""
    for line in _lines(_blocks(file), HARD * length):
        paragraph_ends = not line.strip()
        if piece and (
            len(piece) + len(line) > HARD * length
            or len(piece) >= SLACK * length
            or (len(piece) >= length and not paragraph_ends and piece.endswith(("\n\n", "\n\r\n")))
        ):
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def _lines(blocks: Iterator[str], longest: int) -> Iterator[str]:
    """Lines with their ends; a longer one in parts."""
    rest = ""
    for block in blocks:
        lines = (rest + block).split("\n")
        rest = lines.pop()
        for line in lines:
            yield from _parts(line + "\n", longest)
        while len(rest) > longest:
            yield rest[:longest]
            rest = rest[longest:]
    if rest:
        yield rest


def _parts(line: str, longest: int) -> Iterator[str]:
    return (line[start : start + longest] for start in range(0, len(line), longest))


def _blocks(file: Path) -> Iterator[str]:
    """The text of a file, a block at a time, its line ends as they are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            if b"\0" in block[:8192]:
                raise CorpusError(f"{file} is a binary file: it has NUL bytes.", "Take it out, or rename it.")
            yield _decoded(decoder, block, file, position)
            position += len(block)
    yield _decoded(decoder, b"", file, position)


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, file: Path, position: int) -> str:
    held = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{file} is not UTF-8 text: see byte {position - held + error.start:,}.",
            "Convert it (iconv -t utf-8), or take it out if it is no text.",
        ) from error


def _jsonl(file: Path, length: int) -> Iterator[str]:
    """The `text` of each line."""
    mend = 'Each line is an object with its text: {"text": "..."}'
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_RECORD):
            number += 1
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                problem = "no field `text`" if isinstance(error, KeyError | TypeError) else f"no JSON: {error}"
                raise CorpusError(f"{file}, line {number}: {problem}.", mend) from error
            if not isinstance(text, str):
                raise CorpusError(f"{file}, line {number}: `text` is {type(text).__name__}, no text.", mend)
            yield text


def _parquet(file: Path, length: int) -> Iterator[str]:
    """The column `text`, nulls left out."""
    import pyarrow as arrow

    try:
        yield from texts(file)
    except (arrow.ArrowException, UnicodeError) as error:
        raise CorpusError(f"{file} cannot be read as parquet: {error}.", "Write it again, or take it out.") from error


SUFFIXES: Mapping[str, Callable[[Path, int], Iterator[str]]] = {
    ".txt": _text,
    ".md": _text,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
"""How each kind of file is read."""
