"""Building: copies stay out, an interrupted call goes on, and the result depends on the text alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.corpora.build import build, sample
from harness.corpora.corpus import Corpus, load
from harness.corpora.source import Split, Unit
from harness.errors import CorpusError


class Listed:
    """A source from lists. `read` tells which units were read, in order."""

    name, key = "listed", "listed"

    def __init__(self, *units: tuple[str, Split, Sequence[str]]) -> None:
        self._units = units
        self.read: list[str] = []
        self.before: Callable[[str], None] = lambda name: None

    def units(self) -> list[Unit]:
        return [
            Unit(name, split, lambda name=name, texts=texts: self._documents(name, texts))
            for name, split, texts in self._units
        ]

    def _documents(self, name: str, texts: Sequence[str]) -> Iterator[str]:
        self.read.append(name)
        self.before(name)
        yield from texts


def words(start: int, documents: int = 4) -> list[str]:
    """Documents that no other start has."""
    return [" ".join(f"word{start + n} of {n * n}" for n in range(d, d + 40)) for d in range(documents)]


def small() -> Listed:
    return Listed(
        ("a", "train", words(1000)),
        ("b", "val", words(2000)),
        ("c", "holdout", words(3000)),
        ("d", "train", words(4000)),
    )


def quiet(line: str) -> None:
    pass


def built(source: Listed, folder: Path) -> Corpus:
    build(source, "listed", 300, folder, quiet)
    return load(folder)


def texts(corpus: Corpus, split: Split) -> list[str]:
    """The documents of a split, from its shards."""
    tokenizer = corpus.tokenizer()
    tokens = np.concatenate([np.fromfile(path, "<u2") for path in corpus.shards(split)])
    starts = np.flatnonzero(tokens == tokenizer.separator)
    return [tokenizer.decode(piece).decode() for piece in np.split(tokens, starts)[1:]]


def test_the_shards_hold_the_documents_of_each_split_in_order(tmp_path: Path) -> None:
    corpus = built(small(), tmp_path / "corpus")
    assert texts(corpus, "train") == words(1000) + words(4000)
    assert texts(corpus, "val") == words(2000)
    assert texts(corpus, "holdout") == words(3000)
    assert corpus.units("train") == ["a", "d"]
    corpus.verify()


def test_the_manifest_counts_what_the_shards_hold(tmp_path: Path) -> None:
    corpus = built(small(), tmp_path / "corpus")
    for split in ("train", "val", "holdout"):
        tokens = np.concatenate([np.fromfile(path, "<u2") for path in corpus.shards(split)])
        assert corpus.tokens(split) == len(tokens)
        assert corpus.bytes(split) == corpus.token_bytes()[tokens].sum()
        assert corpus.bytes(split) == sum(len(text.encode()) for text in texts(corpus, split))


def test_a_copy_of_a_measured_document_is_left_out_of_later_splits(tmp_path: Path) -> None:
    val, holdout = words(1), words(100)
    spaced = val[0].replace(" ", "\r\n\t ")
    source = Listed(
        ("v", "val", [*val, spaced]),
        ("h", "holdout", [val[1] + "\n", *holdout]),
        ("t", "train", [spaced, " " + holdout[2], *words(200), words(200)[0]]),
    )
    corpus = built(source, tmp_path / "corpus")
    assert texts(corpus, "val") == val
    assert texts(corpus, "holdout") == holdout
    assert texts(corpus, "train") == [*words(200), words(200)[0]]
    assert {s: corpus.manifest.shards[s][0].copies for s in corpus.manifest.shards} == {
        "val": 1,
        "holdout": 1,
        "train": 2,
    }


def test_empty_documents_are_left_out_and_are_no_copies(tmp_path: Path) -> None:
    source = Listed(("v", "val", ["", " \n", *words(1)]), ("h", "holdout", words(50)), ("t", "train", words(99)))
    corpus = built(source, tmp_path / "corpus")
    assert texts(corpus, "val") == words(1)
    assert corpus.manifest.shards["val"][0].copies == 0


def test_a_split_of_copies_alone_is_an_error_that_names_it(tmp_path: Path) -> None:
    source = Listed(("v", "val", words(1)), ("h", "holdout", words(1)), ("t", "train", words(50)))
    with pytest.raises(CorpusError, match="No text is left for holdout"):
        built(source, tmp_path / "corpus")


def test_a_split_without_units_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing for holdout"):
        built(Listed(("v", "val", words(1)), ("t", "train", words(50))), tmp_path / "corpus")


def test_the_same_text_gives_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    first, second = built(small(), tmp_path / "a"), built(small(), tmp_path / "b")
    assert first.identity == second.identity
    assert (first.folder / "manifest.json").read_bytes() == (second.folder / "manifest.json").read_bytes()


def test_another_text_gives_another_identity(tmp_path: Path) -> None:
    changed = Listed(("a", "train", words(1)), ("b", "val", words(2000)), ("c", "holdout", words(3000)))
    assert built(small(), tmp_path / "a").identity != built(changed, tmp_path / "b").identity


def failing_at(name: str) -> Listed:
    source = small()

    def before(unit: str) -> None:
        # The tokenizer reads all of train first; fail when the shard is made.
        if unit == name and source.read.count(name) == 2:
            raise ConnectionError("the line is cut")

    source.before = before
    return source


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        built(failing_at("d"), tmp_path / "corpus")
    again = small()
    resumed = built(again, tmp_path / "corpus")
    assert again.read == ["d"]
    assert resumed.identity == built(small(), tmp_path / "other").identity
    resumed.verify()


def test_a_build_that_goes_on_still_knows_what_val_and_holdout_hold(tmp_path: Path) -> None:
    source = failing_at("d")
    source._units = (*source._units, ("e", "train", [words(2000)[0], words(3000)[1], "quite new"]))
    with pytest.raises(ConnectionError):
        built(source, tmp_path / "corpus")
    source.before = quiet
    assert texts(built(source, tmp_path / "corpus"), "train")[-1] == "quite new"
    assert load(tmp_path / "corpus").manifest.shards["train"][2].copies == 2


def test_a_line_of_the_journal_that_was_cut_short_costs_one_shard(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        built(failing_at("d"), tmp_path / "corpus")
    journal = tmp_path / "corpus" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    again = small()
    built(again, tmp_path / "corpus").verify()
    assert again.read == ["a", "d"]


def test_a_finished_shard_that_lost_bytes_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        built(failing_at("d"), tmp_path / "corpus")
    with (tmp_path / "corpus" / "val" / "00000.bin").open("r+b") as file:
        file.truncate(10)
    again = small()
    built(again, tmp_path / "corpus").verify()
    assert again.read == ["b", "d"]


def test_what_another_plan_left_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        built(failing_at("d"), tmp_path / "corpus")
    other = Listed(("x", "train", words(1)), ("b", "val", words(2000)), ("c", "holdout", words(3000)))
    corpus = built(other, tmp_path / "corpus")
    assert other.read == ["x", "b", "c", "x"]
    assert len(list((tmp_path / "corpus").rglob("*.bin"))) == 3
    corpus.verify()


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_corpora_build import built, small
source = small()
def before(name):
    if name == "d" and source.read.count("d") == 2:
        os.kill(os.getpid(), signal.SIGKILL)
source.before = before
built(source, Path({folder!r}))
"""


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, here = tmp_path / "corpus", Path(__file__).parent
    code = KILLED.format(paths=[str(here), str(here.parent)], folder=str(folder))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    assert list(folder.rglob("*.part"))
    again = small()
    assert built(again, folder).identity == built(small(), tmp_path / "other").identity
    assert again.read == ["d"]
    assert sorted(os.listdir(folder)) == ["holdout", "manifest.json", "tokenizer.json", "train", "val"]


def test_the_tokenizer_sees_train_alone(tmp_path: Path) -> None:
    source = small()
    assert set(sample(source.units())) == {*words(1000), *words(4000)}
    assert source.read == ["a", "d"]


def test_the_sample_takes_of_each_unit_by_its_size_and_from_all_over_it() -> None:
    def unit(name: str, documents: int) -> Unit:
        return Unit(name, "train", lambda: (f"{name}{n:04d} {'x' * 94}" for n in range(documents)), documents * 100)

    taken = list(sample([unit("a", 900), unit("b", 100)], limit=10_000))
    assert 9_000 <= sum(map(len, taken)) <= 11_000
    assert sum(text.startswith("a") for text in taken) == pytest.approx(90, abs=2)
    assert max(int(text[1:5]) for text in taken if text.startswith("a")) > 850


def test_the_sample_reads_no_further_than_it_needs_in_units_of_unknown_size() -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(10**9):
            read.append(number)
            yield "x" * 100

    taken = list(sample([Unit("a", "train", endless), Unit("b", "train", endless)], limit=10_000))
    assert sum(map(len, taken)) <= 10_200
    assert len(read) < 110
