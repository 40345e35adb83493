"""The ClimbMix corpus: public parquet shards of web text, already shuffled (karpathy/climbmix-400b-shuffle).

The last shard is val, the one before it holdout, train counts from 0: no choice of train reaches those two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.corpora.fetch import Download, fetch
from harness.corpora.parquet import check_column, texts
from harness.corpora.source import Say, Split, Unit
from harness.errors import CorpusError, UsageError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BASE = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST = 6542
"""Number of the last shard."""

KEPT_BYTES = 90_000_000
"""Of UTF-8 text that is read of val, and of holdout: about 20 M tokens, ten times what a score takes."""

MAGIC = b"PAR1"
"""Stands at both ends of a parquet file."""

MEND = (
    "If the address moved, or this machine has no way to it: --mirror names the address under which "
    "shard_00000.parquet and the others lie; or copy them to {folder}; or use --corpus python."
)


class Climbmix:
    """A `Source`. `units` fetches what is not in `folder` yet; some 100 MB a shard."""

    name = "climbmix"

    def __init__(self, folder: Path, mirror: str | None = None, train_shards: int = 10, say: Say = print) -> None:
        """`mirror` takes the place of `BASE`; it does not change what the corpus is."""
        if not 1 <= train_shards <= LAST - 1:
            raise UsageError(f"climbmix has no {train_shards} shards to train on", f"Ask for 1 to {LAST - 1} of them.")
        self.folder = folder
        self.key = f"climbmix-400b-shuffle-{train_shards}-{KEPT_BYTES}"
        self._base = (mirror or BASE).rstrip("/")
        self._train_shards = train_shards
        self._say = say

    def units(self) -> Sequence[Unit]:
        """Train, val, holdout, each shard on the disk and checked. Raises CorpusError."""
        train = range(self._train_shards)
        self._fetch([*train, LAST, LAST - 1])
        return [
            *(self._unit(i, "train", None) for i in train),
            self._unit(LAST, "val", KEPT_BYTES),
            self._unit(LAST - 1, "holdout", KEPT_BYTES),
        ]

    def _fetch(self, shards: Sequence[int]) -> None:
        files = [Download(f"{self._base}/{shard_name(i)}", shard_name(i), check_shard) for i in shards]
        fetch(files, self.folder, say=self._say, mend=MEND.format(folder=self.folder))

    def _unit(self, index: int, split: Split, limit: int | None) -> Unit:
        path = self.folder / shard_name(index)
        return Unit(path.stem, split, partial(documents, path, limit))


def shard_name(index: int) -> str:
    """File name of a shard, from 0 to `LAST`."""
    return f"shard_{index:05d}.parquet"


def reachable(mirror: str | None = None, seconds: float = 5.0) -> bool:
    """Whether the first shard can be asked for from here: one HEAD, no retry, at most about `seconds`.

    A redirect counts: the addresses it leads to are often good for a GET alone.
    """
    import httpx

    url = f"{(mirror or BASE).rstrip('/')}/{shard_name(0)}"
    try:
        answer = httpx.head(url, timeout=seconds, headers={"User-Agent": "autoresearch-harness"})
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return answer.status_code < 400 or answer.status_code == 405  # 405: HEAD itself is refused


def documents(path: Path, limit: int | None = None) -> Iterator[str]:
    """Texts of a shard in its order, a batch of them in memory.

    Stops after the one that fills `limit` bytes of UTF-8. Texts that are empty are left out.

    Raises CorpusError if the file is damaged.
    """
    import pyarrow as pa

    left = limit
    try:
        for text in filter(None, texts(path)):
            yield text
            if left is not None and (left := left - len(text.encode())) <= 0:
                return
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise CorpusError(f"{path} is damaged: {error}", "Delete it; it is fetched anew.") from error


def check_shard(path: Path) -> None:
    """Raises CorpusError unless the file is parquet from end to end, with rows and a string column `text`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, path.stat().st_size - 8))
        tail = file.read()
    if head != MAGIC or tail[4:] != MAGIC:
        raise CorpusError(f"{path.name} is not a parquet file, or not all of one")
    try:
        with pq.ParquetFile(path) as parquet:
            _check_contents(path, parquet, footer=8 + int.from_bytes(tail[:4], "little"))
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"the metadata of {path.name} cannot be read: {error}") from error


def _check_contents(path: Path, parquet: pq.ParquetFile, footer: int) -> None:
    """Column, rows, and that the column chunks end where the footer begins: bytes lost between are seen."""
    check_column(path, parquet)
    if not parquet.metadata.num_rows:
        raise CorpusError(f"{path.name} has no rows")
    if _end_of_data(parquet) > path.stat().st_size - footer:
        raise CorpusError(f"bytes are missing from the middle of {path.name}")


def _end_of_data(parquet: pq.ParquetFile) -> int:
    """Offset of the byte after the last column chunk."""
    chunks = (
        parquet.metadata.row_group(group).column(column)
        for group in range(parquet.metadata.num_row_groups)
        for column in range(parquet.metadata.num_columns)
    )
    ends = (
        min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        + chunk.total_compressed_size
        for chunk in chunks
    )
    return max(ends, default=0)
