"""Carries a prepared corpus to another node: one tar out, the same corpus in, every byte checked."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.corpora.corpus import Corpus, load
from harness.corpora.manifest import MANIFEST, TOKENIZER, File, Manifest
from harness.corpora.shards import write_atomically
from harness.corpora.source import SPLITS
from harness.errors import CorpusError

CHUNK = 1 << 20
LARGEST_MANIFEST = 64 << 20
"""Bytes; what claims to be more is no manifest."""


def export(corpus: Corpus, path: Path) -> None:
    """Write the corpus as a tar file at `path`, whole or not at all; the manifest comes first."""
    temporary = path.with_name(path.name + ".part")
    try:
        with tarfile.open(temporary, "w") as tar:
            _add(tar, MANIFEST, corpus.folder / MANIFEST)
            for entry in corpus.manifest.files:
                _add(tar, entry.file, corpus.folder / entry.file)
        temporary.replace(path)
    except OSError as error:
        raise CorpusError(
            f"The corpus cannot be exported to {path}: {error.strerror}.", "Make room, or name another file."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def import_(path: Path, cache: Path) -> Corpus:
    """Take an exported corpus into `cache`; one that is there already is left as it is.

    Nothing is extracted by the names in the archive: only the files that its manifest lists are read, by
    their listed sizes, and each must have its listed hash. Raises CorpusError if one has not, if the file is
    no export, or if another corpus holds its place.
    """
    cache = cache.expanduser().absolute()
    try:
        with tarfile.open(path, "r:") as tar:
            return _import(tar, path, cache)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CorpusError(
            f"{path} cannot be imported: {error}.", "Export the corpus again, and copy the file whole."
        ) from error


def _import(tar: tarfile.TarFile, path: Path, cache: Path) -> Corpus:
    content = _manifest(tar, path)
    manifest = Manifest.parse(content)
    folder = cache / manifest.folder
    if folder.exists():
        return _same(load(folder), manifest)
    arriving = cache / f"{manifest.folder}.arriving"
    shutil.rmtree(arriving, ignore_errors=True)
    try:
        for entry in manifest.files:
            _extract(tar, entry, arriving, path)
        write_atomically(arriving / MANIFEST, [content])
        arriving.replace(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return load(folder)


def _manifest(tar: tarfile.TarFile, path: Path) -> bytes:
    first = tar.next()
    if first is not None and first.isfile() and first.name == MANIFEST and first.size <= LARGEST_MANIFEST:
        content = _open(tar, first).read()
        try:
            Manifest.parse(content)
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"The manifest in {path} cannot be used: {error}.", "Export it again.") from error
        return content
    raise CorpusError(f"{path} is no exported corpus: it does not begin with {MANIFEST}.", "Name another file.")


def _same(corpus: Corpus, manifest: Manifest) -> Corpus:
    if corpus.identity != manifest.identity:
        raise CorpusError(
            f"{corpus.folder} holds {corpus.identity}; {manifest.identity} belongs in the same place.",
            "Move the folder away, or import into another cache.",
        )
    return corpus


def _extract(tar: tarfile.TarFile, entry: File, folder: Path, path: Path) -> None:
    """One listed file. Its path was written by `build`, or the manifest is not to be trusted."""
    if not re.fullmatch(rf"{re.escape(TOKENIZER)}|({'|'.join(SPLITS)})/\d{{5,}}\.bin", entry.file):
        raise CorpusError(f"The manifest in {path} names a file outside the corpus: {entry.file!r}.", "Discard it.")
    member = tar.next()
    if member is None or member.name != entry.file or not member.isfile() or member.size != entry.size:
        raise CorpusError(f"{path} does not hold {entry.file} as its manifest says.", "Export it again.")
    target = folder / entry.file
    target.parent.mkdir(parents=True, exist_ok=True)
    if write_atomically(target, _chunks(_open(tar, member))).sha256 != entry.sha256:
        raise CorpusError(f"{entry.file} in {path} is damaged: its hash is another.", "Export or copy it again.")


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return tar.extractfile(member) or io.BytesIO()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """A plain file, with nothing in it of this machine's users or clock."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    member.mode = 0o644
    with path.open("rb") as file:
        tar.addfile(member, file)
