"""Texts of a parquet file: its column `text`, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 256
"""Texts that are in memory at once, beside what arrow holds of a row group."""


def texts(path: Path) -> Iterator[str]:
    """The column `text` in its order, nulls left out.

    Raises CorpusError if there is no such column of strings; a damaged file raises pyarrow.ArrowException, OSError
    or UnicodeError, where it is met.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_column(path, file)
        for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
            yield from (text for text in batch.column(0).to_pylist() if text is not None)


def check_column(path: Path, file: pq.ParquetFile) -> None:
    """Raises CorpusError unless the file has a column `text` of strings."""
    import pyarrow.types as types

    fields = {field.name: field.type for field in file.schema_arrow}
    kind = fields.get("text")
    if kind is None:
        found = ", ".join(fields) or "none"
        raise CorpusError(f"{path} has no column `text`, but: {found}.", "Rename the column that holds the text.")
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise CorpusError(f"The column `text` of {path} is {kind}, no text.", "Write it as strings.")
