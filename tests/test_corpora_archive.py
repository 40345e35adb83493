"""Export and import: the same corpus on another node, or an error; never a file outside the cache."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.corpora import Corpus, export, find, import_, prepare
from harness.errors import CorpusError

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("texts")
    lines = (json.dumps({"text": f"document {n} of {n * n} " * 20}) for n in range(900))
    (folder / "lines.jsonl").write_text("\n".join(lines))
    return prepare(str(folder), 300, tmp_path_factory.mktemp("cache"), say=lambda line: None)


@pytest.fixture
def exported(corpus: Corpus, tmp_path: Path) -> Path:
    export(corpus, tmp_path / "corpus.tar")
    return tmp_path / "corpus.tar"


def rewritten(path: Path, change: Callable[[Members], None]) -> Path:
    """The archive with its members changed."""
    with tarfile.open(path) as tar:
        members: Members = []
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            members.append((info, file.read()))
    change(members)
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_an_imported_corpus_is_the_one_that_was_exported(corpus: Corpus, exported: Path, tmp_path: Path) -> None:
    arrived = import_(exported, tmp_path / "there")
    arrived.verify()
    assert arrived.identity == corpus.identity
    assert arrived.manifest == corpus.manifest
    assert find(corpus.manifest.spec, 300, tmp_path / "there") == arrived


def test_importing_what_is_there_changes_nothing(corpus: Corpus, exported: Path) -> None:
    before = corpus.folder.stat().st_mtime_ns
    assert import_(exported, corpus.folder.parent) == corpus
    assert corpus.folder.stat().st_mtime_ns == before


def test_two_exports_are_the_same_bytes(corpus: Corpus, exported: Path, tmp_path: Path) -> None:
    export(corpus, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()


def assert_refused(path: Path, cache: Path, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        import_(path, cache)
    assert not cache.exists() or os.listdir(cache) == []


def test_a_changed_byte_is_refused_and_nothing_is_left(exported: Path, tmp_path: Path) -> None:
    def change(members: Members) -> None:
        info, content = members[2]
        members[2] = info, content[:-1] + bytes([content[-1] ^ 1])

    assert_refused(rewritten(exported, change), tmp_path / "there", "hash is another")


def test_an_archive_cut_short_is_refused_and_nothing_is_left(exported: Path, tmp_path: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:40_000])
    assert_refused(exported, tmp_path / "there", "cannot be imported|does not hold|damaged")


def test_a_missing_member_is_refused(exported: Path, tmp_path: Path) -> None:
    assert_refused(rewritten(exported, lambda members: members.pop(3) and None), tmp_path / "there", "does not hold")


def test_a_link_in_place_of_a_file_is_refused(exported: Path, tmp_path: Path) -> None:
    def change(members: Members) -> None:
        info, _ = members[2]
        info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
        members[2] = info, b""

    assert_refused(rewritten(exported, change), tmp_path / "there", "does not hold")


@pytest.mark.parametrize("name", ["../../outside.bin", "/tmp/outside.bin", "val/../../outside.bin", "manifest.json"])
def test_a_manifest_that_names_a_file_outside_is_refused(exported: Path, tmp_path: Path, name: str) -> None:
    def change(members: Members) -> None:
        fields = json.loads(members[0][1])
        fields["shards"]["val"][0]["file"] = name
        content = json.dumps(fields).encode()
        members[0][0].size = len(content)
        members[0] = members[0][0], content
        members[2][0].name = name

    cache = tmp_path / "deep" / "there"
    assert_refused(rewritten(exported, change), cache, "names a file outside")
    assert not list(tmp_path.rglob("outside.bin"))


def test_further_members_are_never_written(corpus: Corpus, exported: Path, tmp_path: Path) -> None:
    def change(members: Members) -> None:
        info = tarfile.TarInfo("../extra.bin")
        info.size = 3
        members.append((info, b"abc"))

    arrived = import_(rewritten(exported, change), tmp_path / "there")
    assert arrived.identity == corpus.identity
    assert not list(tmp_path.rglob("extra.bin"))


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.tar").write_bytes(b"no archive at all" * 100)
    assert_refused(tmp_path / "plain.tar", tmp_path / "there", "cannot be imported")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    assert_refused(tmp_path / "other.tar", tmp_path / "there", "no exported corpus")
    assert_refused(tmp_path / "absent.tar", tmp_path / "there", "cannot be imported")


def test_another_corpus_in_the_place_is_left_alone(exported: Path, tmp_path: Path) -> None:
    cache = tmp_path / "there"
    arrived = import_(exported, cache)

    def change(members: Members) -> None:
        fields = json.loads(members[0][1])
        fields["name"] = "other"
        fields["identity"] = "other-" + fields["identity"].split("-")[-1]
        content = json.dumps(fields).encode()
        members[0][0].size = len(content)
        members[0] = members[0][0], content

    with pytest.raises(CorpusError, match="belongs in the same place"):
        import_(rewritten(exported, change), cache)
    arrived.verify()


def test_an_export_that_cannot_be_written_is_a_corpus_error(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.part").symlink_to("/dev/full")
    with pytest.raises(CorpusError, match="No space left"):
        export(corpus, tmp_path / "corpus.tar")
    assert os.listdir(tmp_path) == []
