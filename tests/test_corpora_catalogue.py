"""Preparing and finding: frozen until rebuilt, one process at a time, and clear when the disk says no."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.corpora import Corpus, find, load, prepare
from harness.corpora.catalogue import source_of
from harness.corpora.python import InstalledPython
from harness.errors import CorpusError

VOCAB = 300


def text(seed: int, kilobytes: int = 400) -> str:
    """Paragraphs of words, none like another."""
    lines = (f"Paragraph {seed * 10**6 + n} tells of {n * n} and {n**3 % 977}.\n\n" for n in range(kilobytes * 25))
    return "".join(lines)[: kilobytes * 1000]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Några texter" / "my notes.txt"
    path.parent.mkdir()
    path.write_text(text(1), "utf-8")
    return path


def quiet(line: str) -> None:
    pass


def prepared(file: Path, cache: Path, *, rebuild: bool = False) -> Corpus:
    return prepare(str(file), VOCAB, cache, rebuild=rebuild, say=quiet)


def test_prepare_leaves_what_find_and_load_open(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    assert corpus == find(str(file), VOCAB, tmp_path / "cache") == load(corpus.folder)
    assert corpus.identity.startswith("my-notes-")
    assert corpus.vocab == len(corpus.token_bytes()) == VOCAB
    assert corpus.bytes("train") + corpus.bytes("val") + corpus.bytes("holdout") == file.stat().st_size


def test_find_knows_none_that_is_not_prepared(file: Path, tmp_path: Path) -> None:
    prepared(file, tmp_path / "cache")
    assert find(str(file), VOCAB + 1, tmp_path / "cache") is None
    assert find("python", VOCAB, tmp_path / "cache") is None


def test_find_needs_the_text_no_more(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    file.unlink()
    assert find(str(file), VOCAB, tmp_path / "cache") == corpus


def test_a_corpus_is_frozen_until_it_is_rebuilt(file: Path, tmp_path: Path) -> None:
    first = prepared(file, tmp_path / "cache")
    file.write_text(text(2), "utf-8")
    lines: list[str] = []
    assert prepare(str(file), VOCAB, tmp_path / "cache", say=lines.append) == first
    assert lines[1].endswith(f"changed since. Prepare it anew: python prepare.py --corpus '{file}' --rebuild")
    rebuilt = prepared(file, tmp_path / "cache", rebuild=True)
    assert rebuilt.folder == first.folder
    assert rebuilt.identity != first.identity
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        first.folder.name,
        f"{first.folder.name}.lock",
    ]


def test_a_rebuild_that_fails_leaves_the_old_corpus(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    file.write_bytes(b"\xff\xfe not text")
    with pytest.raises(CorpusError, match="not UTF-8"):
        prepared(file, tmp_path / "cache", rebuild=True)
    load(corpus.folder).verify()


def test_the_same_text_has_the_same_identity_in_every_cache(file: Path, tmp_path: Path) -> None:
    assert prepared(file, tmp_path / "a").identity == prepared(file, tmp_path / "b").identity


def test_a_relative_and_an_absolute_path_are_one_corpus(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = prepared(file, tmp_path / "cache")
    monkeypatch.chdir(file.parent)
    assert find(file.name, VOCAB, tmp_path / "cache") == corpus


def test_the_first_line_says_what_will_be_done(file: Path, tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    prepare(str(file), VOCAB, tmp_path / "cache", say=first.append)
    prepare(str(file), VOCAB, tmp_path / "cache", say=second.append)
    assert first[0].startswith(f"Preparing corpus {file}")
    assert second == [f"Nothing to prepare: {find(str(file), VOCAB, tmp_path / 'cache')}"]


def test_the_second_of_two_processes_waits_and_says_so(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = prepared(file, tmp_path / "other").folder.name
    cache.mkdir()
    waits = threading.Event()
    found: list[Corpus] = []

    def say(line: str) -> None:
        if "waiting" in line:
            waits.set()

    with (cache / f"{folder}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: found.append(prepare(str(file), VOCAB, cache, say=say)))
        other.start()
        assert waits.wait(30)
        assert not (cache / folder).exists()
    other.join(60)
    assert found == [find(str(file), VOCAB, cache)]


def test_processes_side_by_side_make_one_corpus(file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.corpora import prepare\n"
        f"print(prepare(sys.argv[1], {VOCAB}, Path(sys.argv[2]), say=lambda line: None).identity)"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path / "cache")]
    here = Path(__file__).parents[1]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert said == {prepared(file, tmp_path / "other").identity + "\n"}
    prepared(file, tmp_path / "cache").verify()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from harness.corpora import prepare
from harness.errors import CorpusError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    prepare(sys.argv[1], 300, Path(sys.argv[2]))
except CorpusError as error:
    print(error.problem, "|", error.mend)
"""


def test_a_disk_that_takes_no_more_is_a_corpus_error_and_nothing_is_left(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(file), str(tmp_path / "cache")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, cwd=Path(__file__).parents[1]
    )
    assert "No room for the corpus" in done.stdout
    assert "AUTORESEARCH_CACHE" in done.stdout
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_cache_that_is_no_folder_is_a_corpus_error(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CorpusError, match="cannot be prepared"):
        prepared(file, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer"])
def test_a_file_that_is_not_as_it_was_written_is_named_with_what_to_do(file: Path, tmp_path: Path, damage: str) -> None:
    corpus = prepared(file, tmp_path / "cache")
    shard = corpus.shards("val")[0]
    content = shard.read_bytes()
    shard.unlink()
    if damage != "missing":
        shard.write_bytes(content[:-2] if damage == "shorter" else content + b"..")
    with pytest.raises(CorpusError, match=r"val/00000\.bin.*\n.*--rebuild"):
        load(corpus.folder)


def test_verify_finds_one_changed_token(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    shard = corpus.shards("holdout")[0]
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    load(corpus.folder)
    with pytest.raises(CorpusError, match=r"holdout/00000\.bin is damaged"):
        corpus.verify()


@pytest.mark.parametrize(
    "field", ["identity", "tokenizer", "shards", "sums", "vocab"], ids=lambda field: f"without {field}"
)
def test_a_manifest_that_is_not_whole_is_refused(file: Path, tmp_path: Path, field: str) -> None:
    corpus = prepared(file, tmp_path / "cache")
    path = corpus.folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    del fields[field]
    path.write_text(json.dumps(fields))
    with pytest.raises(CorpusError, match=r"manifest\.json cannot be used.*\n.*--rebuild"):
        load(corpus.folder)


def test_a_manifest_with_another_hash_in_it_is_refused(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    path = corpus.folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["shards"]["val"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(fields))
    with pytest.raises(CorpusError, match="do not belong together"):
        load(corpus.folder)


def test_a_damaged_corpus_is_mended_by_a_rebuild(file: Path, tmp_path: Path) -> None:
    corpus = prepared(file, tmp_path / "cache")
    (corpus.folder / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match="--rebuild"):
        prepared(file, tmp_path / "cache")
    assert prepared(file, tmp_path / "cache", rebuild=True).identity == corpus.identity


def test_a_folder_without_a_corpus_is_a_corpus_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no prepared corpus"):
        load(tmp_path)


def test_the_names_of_corpora_lead_to_their_sources(tmp_path: Path) -> None:
    assert isinstance(source_of("python", tmp_path, None, quiet), InstalledPython)
    assert source_of("climbmix", tmp_path, None, quiet).name == "climbmix"
    assert source_of("some/folder", tmp_path, None, quiet).name == "folder"


@pytest.mark.parametrize("spec", ["", "  ", "pyhton"])
def test_a_name_that_means_nothing_is_refused_with_the_names_there_are(spec: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="climbmix, python"):
        prepare(spec, VOCAB, tmp_path / "cache", say=quiet)


def test_opening_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, harness.corpora as c, harness.corpora.python, harness.corpora.path\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'rich', 'tiktoken', 'rustbpe', 'httpx', 'packaging'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout == "[]\n"
