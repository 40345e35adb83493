"""ClimbMix from a real local mirror of small parquet shards."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.corpora import climbmix
from harness.corpora.climbmix import Climbmix, check_shard, documents, reachable, shard_name
from harness.corpora.source import Source
from harness.errors import CorpusError, UsageError

TEXTS = {
    0: ["zero", "null, été"],
    1: ["one", "uno", "eins"],
    climbmix.LAST - 1: ["held", "out"],
    climbmix.LAST: ["validation", "of", "models"],
}


def write(path: Path, texts: list[str | None], kind: pa.DataType | None = None, group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(texts, kind or pa.string())}), path, row_group_size=group)
    return path


class Handler(SimpleHTTPRequestHandler):
    """A folder, as it is; notes what was asked."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.requestline)


class Server(ThreadingHTTPServer):
    """Does not mind a client that leaves: one failed shard ends the others."""

    daemon_threads = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.asked: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class Mirror:
    """An address, the folder behind it, and the request lines so far."""

    url: str
    folder: Path
    asked: list[str]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "mirror"
    for index, texts in TEXTS.items():
        write(folder / "base" / shard_name(index), list(texts))
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Mirror(f"http://127.0.0.1:{server.server_port}/base", folder / "base", server.asked)
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nothing listens, and nothing can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def corpus(folder: Path, mirror: str, shards: int = 2) -> Climbmix:
    return Climbmix(folder, mirror, shards, say=lambda line: None)


def test_train_counts_from_the_front_and_val_and_holdout_are_the_last_two(mirror: Mirror, tmp_path: Path) -> None:
    source: Source = corpus(tmp_path / "raw", mirror.url)
    units = source.units()
    assert [(unit.name, unit.split) for unit in units] == [
        ("shard_00000", "train"),
        ("shard_00001", "train"),
        ("shard_06542", "val"),
        ("shard_06541", "holdout"),
    ]
    assert [list(unit.documents()) for unit in units] == [TEXTS[0], TEXTS[1], TEXTS[6542], TEXTS[6541]]


def test_documents_come_in_the_same_order_whenever_they_are_read(mirror: Mirror, tmp_path: Path) -> None:
    unit = corpus(tmp_path / "raw", mirror.url).units()[1]
    assert list(unit.documents()) == list(unit.documents()) == TEXTS[1]


def test_all_shards_lie_on_the_disk_before_the_first_document_is_read(mirror: Mirror, tmp_path: Path) -> None:
    corpus(tmp_path / "raw", mirror.url + "/").units()
    for index in TEXTS:
        name = shard_name(index)
        assert (tmp_path / "raw" / name).read_bytes() == (mirror.folder / name).read_bytes()
    assert sorted(mirror.asked) == sorted(f"GET /base/{shard_name(i)} HTTP/1.1" for i in TEXTS)


def test_shards_that_are_there_need_no_network(mirror: Mirror, tmp_path: Path, nowhere: str) -> None:
    corpus(tmp_path / "raw", mirror.url).units()
    assert list(corpus(tmp_path / "raw", nowhere).units()[0].documents()) == TEXTS[0]


def test_val_and_holdout_are_cut_to_what_is_kept_and_train_is_not(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbmix, "KEPT_BYTES", 4)
    units = corpus(tmp_path / "raw", mirror.url).units()
    assert [len(list(unit.documents())) for unit in units] == [2, 3, 1, 1]


def test_what_is_kept_holds_ten_times_the_tokens_of_a_score() -> None:
    assert climbmix.KEPT_BYTES >= 10 * 2_000_000 * 4  # 4 bytes a token and more


def test_the_limit_counts_bytes_and_the_document_that_fills_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["éé", "é", "x", "y"])
    assert list(documents(path, 5)) == ["éé", "é"]
    assert list(documents(path, 6)) == ["éé", "é"]
    assert list(documents(path, 7)) == ["éé", "é", "x"]


def test_the_key_names_the_choice_of_documents_and_not_where_they_came_from(tmp_path: Path) -> None:
    assert Climbmix(tmp_path, None, 3).key == Climbmix(tmp_path / "b", "http://mirror", 3).key
    assert Climbmix(tmp_path, None, 3).key != Climbmix(tmp_path, None, 4).key


@pytest.mark.parametrize("shards", [0, -1, climbmix.LAST])
def test_train_never_reaches_into_val_or_holdout(tmp_path: Path, shards: int) -> None:
    with pytest.raises(UsageError, match="6541"):
        Climbmix(tmp_path, train_shards=shards)


def test_a_shard_that_the_mirror_lacks_is_named_with_the_mend(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="404") as caught:
        corpus(tmp_path / "raw", mirror.url, 3).units()
    assert f"{mirror.url}/shard_00002.parquet" in caught.value.problem
    assert "mirror" in caught.value.mend
    assert str(tmp_path / "raw") in caught.value.mend


def test_a_corrupt_shard_is_asked_for_twice_and_does_not_stay(mirror: Mirror, tmp_path: Path) -> None:
    bad = mirror.folder / shard_name(1)
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="not all of one"):
        corpus(tmp_path / "raw", mirror.url).units()
    assert mirror.asked.count(f"GET /base/{bad.name} HTTP/1.1") == 2
    assert not list((tmp_path / "raw").glob("shard_00001*"))


def test_a_shard_that_was_spoilt_on_the_disk_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    source = corpus(tmp_path / "raw", mirror.url)
    source.units()
    (tmp_path / "raw" / shard_name(0)).write_bytes(b"PAR1 and no more PAR1")
    assert list(source.units()[0].documents()) == TEXTS[0]
    assert len(mirror.asked) == len(TEXTS) + 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_shard_of_strings_passes(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "a.parquet", ["a", "b", "a"], kind)
    check_shard(path)
    assert list(documents(path)) == ["a", "b", "a"]


def test_a_shard_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    cases = {
        "no rows": {"text": pa.array([], pa.string())},
        "no column": {"n": [1]},
        "strings": {"text": [1]},
    }
    for problem, columns in cases.items():
        pq.write_table(pa.table(columns), path)
        with pytest.raises(CorpusError, match=problem):
            check_shard(path)


@pytest.mark.parametrize(
    "body", [b"", b"PAR1", b"<!doctype html><title>Sign in</title>", b"PAR1" + bytes(99) + b"PAR1"]
)
def test_what_is_no_parquet_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(body)
    with pytest.raises(CorpusError, match=r"a\.parquet"):
        check_shard(path)


def test_bytes_lost_between_both_ends_are_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [f"{i} {i * i}" for i in range(1000)])
    check_shard(path)
    body = path.read_bytes()
    path.write_bytes(body[:1000] + body[1010:])
    with pytest.raises(CorpusError, match="missing from the middle"):
        check_shard(path)


def test_documents_are_streamed_and_damage_is_told_where_it_is_met(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [f"{i:05d}" * 50 for i in range(10_000)], group=1000)
    column = pq.read_metadata(path).row_group(5).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(column.total_compressed_size))
    read = documents(path)
    assert [next(read)[:5] for _ in range(3000)] == [f"{i:05d}" for i in range(3000)]
    with pytest.raises(CorpusError, match="damaged") as caught:
        list(read)
    assert "Delete" in caught.value.mend


PEAK = """
import sys
from pathlib import Path
import pyarrow
from harness.corpora.climbmix import documents
print(sum(map(len, documents(Path(sys.argv[1])))), pyarrow.default_memory_pool().max_memory())
"""


def test_memory_holds_a_part_of_a_shard(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [f"{i} " * 500 for i in range(20_000)], group=1000)
    command = [sys.executable, "-c", PEAK, str(path)]  # a process of its own: the peak is that of reading
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    whole, peak = map(int, done.stdout.split())
    assert 0 < peak < whole / 2


def test_empty_and_missing_texts_are_left_out(tmp_path: Path) -> None:
    assert list(documents(write(tmp_path / "a.parquet", ["a", None, "", "b"]))) == ["a", "b"]


def test_a_mirror_that_answers_is_reachable(mirror: Mirror) -> None:
    assert reachable(mirror.url)
    assert mirror.asked == ["HEAD /base/shard_00000.parquet HTTP/1.1"]


def test_a_mirror_without_the_shards_is_not_reachable(mirror: Mirror) -> None:
    assert not reachable(mirror.url + "/elsewhere")


def test_a_redirect_is_as_good_as_an_answer(mirror: Mirror) -> None:
    (mirror.folder / "sub" / shard_name(0)).mkdir(parents=True)  # a folder: its server redirects to name/
    assert reachable(mirror.url + "/sub/")


def test_an_address_at_which_nobody_answers_is_not_reachable(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not reachable(nowhere)
    assert not reachable("no address")


def test_a_server_that_takes_the_call_and_is_silent_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.1)


def test_to_name_the_corpus_loads_neither_arrow_nor_a_client() -> None:
    code = "import sys, harness.corpora.climbmix; print({'pyarrow', 'httpx', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
