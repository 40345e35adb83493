"""Finds a prepared corpus by the user's word for it, or prepares it: the one place that knows the sources."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.corpora.alone import alone
from harness.corpora.build import build
from harness.corpora.corpus import Corpus, load, mend
from harness.corpora.manifest import MANIFEST, folder_name
from harness.corpora.source import Say, Source, stamp_of
from harness.corpora.tokenizer import check_vocab
from harness.errors import CorpusError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


NAMED = ("climbmix", "python")
"""Corpora with a name of their own; any other word is a path."""


def source_of(spec: str, cache: Path, mirror: str | None, say: Say) -> Source:
    """The source that `spec` names: `climbmix`, `python`, or else a path. Reads and fetches nothing yet."""
    if not spec.strip():
        raise CorpusError("The name of the corpus is empty.", "Name climbmix, python, or a file or folder.")
    if spec == "climbmix":
        from harness.corpora.climbmix import Climbmix

        return Climbmix(cache / "climbmix", mirror, say=say)
    if spec == "python":
        from harness.corpora.python import InstalledPython

        return InstalledPython()
    from harness.corpora.path import TextFiles

    return TextFiles(Path(spec))


def find(spec: str, vocab: int, cache: Path) -> Corpus | None:
    """The corpus, if it lies complete in `cache`. Raises CorpusError if it does, but damaged."""
    check_vocab(vocab)
    return _complete(_folder(source_of(spec, cache.expanduser(), None, print), vocab, cache.expanduser()))


def prepare(
    spec: str,
    vocab: int,
    cache: Path,
    *,
    rebuild: bool = False,
    mirror: str | None = None,
    say: Say = print,
) -> Corpus:
    """The corpus `spec` (`climbmix`, `python` or a path) in tokens of a vocabulary of `vocab`, from `cache`.

    Once prepared it is frozen: it is taken as it lies there, even if its text has changed since, until
    `rebuild`. A preparation that was interrupted goes on where it stopped. Of two processes, the second
    waits. `mirror`: where a source that fetches does so instead. The first line to `say` tells what is done.

    Raises CorpusError with what to do if the text cannot be had or read, or the disk is full.
    """
    check_vocab(vocab)
    cache = cache.expanduser().absolute()
    source = source_of(spec, cache, mirror, say)
    folder = _folder(source, vocab, cache)
    if not rebuild and (corpus := _complete(folder)):
        _say_ready(corpus, source, spec, say)
        return corpus
    say(f"Preparing corpus {spec} with a vocabulary of {vocab:,} in {folder}")
    lock, busy = folder.with_name(folder.name + ".lock"), "  Another process prepares this corpus; waiting for it."
    with _disk_errors(folder), alone(lock, say, busy):
        if not rebuild and (corpus := _complete(folder)):
            return corpus
        corpus = _build(source, spec, vocab, folder, rebuild, say)
    say(f"Prepared {corpus}")
    return corpus


def see_that_nothing_is_shown(corpus: Corpus) -> None:
    """Raise CorpusError if the text of val or holdout lies where code under test can read it."""
    if corpus.manifest.name == "python":
        from harness.corpora.python import see_that_nothing_is_shown

        see_that_nothing_is_shown(corpus)


def _folder(source: Source, vocab: int, cache: Path) -> Path:
    return cache / folder_name(source.key, vocab)


def _complete(folder: Path) -> Corpus | None:
    return load(folder) if (folder / MANIFEST).exists() else None


def _say_ready(corpus: Corpus, source: Source, spec: str, say: Say) -> None:
    say(f"Nothing to prepare: {corpus}")
    if corpus.manifest.stamp != stamp_of(source):
        say(f"  Its text has changed since. {mend(spec)}")
        say("  Scores on the new text compare with no old ones.")


def _build(source: Source, spec: str, vocab: int, folder: Path, rebuild: bool, say: Say) -> Corpus:
    """Build beside `folder`, and put it in place when it is whole, so that a rebuild never leaves none."""
    building = _building(folder)
    if rebuild or not (building / MANIFEST).exists():
        build(source, spec, vocab, building, say)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    building.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return load(folder)


def _building(folder: Path) -> Path:
    return folder.with_name(folder.name + ".building")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the disk says, as a CorpusError; one that is full is not left full of what was begun."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder.parent
        if error.errno not in FULL:
            raise CorpusError(
                f"The corpus cannot be prepared: {where}: {error.strerror}.",
                "Make it accessible, or name another cache with AUTORESEARCH_CACHE.",
            ) from error
        shutil.rmtree(_building(folder), ignore_errors=True)
        raise CorpusError(
            f"No room for the corpus in {folder.parent}: {error.strerror}.",
            "What was begun is removed. Free some room, or name another cache with AUTORESEARCH_CACHE.",
        ) from error
