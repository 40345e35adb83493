"""The downloader against a real server that cuts, lies, stalls and changes its mind."""

from __future__ import annotations

import fcntl
import hashlib
import io
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.corpora.fetch import MEND, Download, Retries, fetch
from harness.errors import CorpusError

BODY = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
LATER = "Tue, 01 Jan 2999 00:00:00 GMT"
EARLIER = "Thu, 01 Jan 2015 00:00:00 GMT"


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    path: str
    range: str | None
    if_range: str | None


class Handler(BaseHTTPRequestHandler):
    """Answers with the next act of the script for the path, and by the book when that has run out."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
        script = self.server.script[self.path]
        act = script.pop(0) if script else serve()
        act(self)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Keeps the script and what it was asked."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: defaultdict[str, list[Act]] = defaultdict(list)
        self.requests: list[Request] = []
        self.closing = threading.Event()

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about; all else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


Act = Callable[[Handler], None]


def serve(body: bytes = BODY, tag: str | None = '"1"', stop: int | None = None, heed: bool = True) -> Act:
    """By the book, with ranges; cut after `stop` bytes of the answer; `heed`: If-Range is obeyed."""

    def act(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        headers = {"ETag": tag} if tag else {}
        start = int(asked[1]) if asked and (not heed or handler.headers["If-Range"] == tag) else None
        if start is not None and start >= len(body):
            return handler.head(416, {"Content-Length": "0"})
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        headers["Content-Length"] = str(len(body) - (start or 0))
        handler.head(200 if start is None else 206, headers)
        handler.wfile.write(body[start or 0 :][:stop])

    return act


def raw(status: int, body: bytes = b"", **headers: str) -> Act:
    """Exactly this answer; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def act(handler: Handler) -> None:
        handler.head(status, {"Content-Length": str(len(body)), **named})
        handler.wfile.write(body)

    return act


def hang(stop: int) -> Act:
    """Sends so many bytes, then nothing until the server is closed."""

    def act(handler: Handler) -> None:
        serve(stop=stop)(handler)
        handler.wfile.flush()
        handler.server.closing.wait()

    return act


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@dataclass
class Client:
    """Fetches without waiting; notes how long it would have waited and what it said."""

    server: Server
    folder: Path
    waits: list[float]
    lines: list[str]

    def get(self, check: Callable[[Path], None] = lambda path: None, **retries: float) -> bytes:
        self.fetch([Download(self.server.url(), "file", check)], MEND, **retries)
        return (self.folder / "file").read_bytes()

    def fetch(self, files: list[Download], mend: str = MEND, **retries: float) -> None:
        patience = Retries(sleep=self.sleep, **retries)  # type: ignore[arg-type]
        fetch(files, self.folder, say=self.lines.append, retries=patience, mend=mend)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def script(self, *acts: Act) -> None:
        self.server.script["/file"] = list(acts)

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.server.requests]


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    return Client(server, tmp_path / "raw shards, été", [], [])


def must_be(body: bytes) -> Callable[[Path], None]:
    """A check for exactly these bytes."""

    def check(path: Path) -> None:
        if path.read_bytes() != body:
            raise CorpusError(f"{path.name} has other bytes")

    return check


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_a_file_arrives_byte_for_byte_and_leaves_nothing_beside_it(client: Client) -> None:
    assert client.get() == BODY
    assert client.ranges == [None]
    assert client.waits == []
    assert left(client.folder) == {"file"}


def test_files_come_side_by_side_but_no_more_than_asked(server: Server, client: Client) -> None:
    pair, third = threading.Barrier(2, timeout=20), threading.Event()
    early: list[bool] = []

    def first_two(handler: Handler) -> None:
        pair.wait()  # none is answered before both are here
        early.append(third.wait(0.2))
        serve(b"early")(handler)

    def last(handler: Handler) -> None:
        third.set()
        serve(b"late")(handler)

    server.script.update({"/a": [first_two], "/b": [first_two], "/c": [last]})
    files = [Download(server.url(f"/{name}"), name, lambda path: None) for name in "abc"]
    fetch(files, client.folder, parallel=2, say=client.lines.append)
    assert [(client.folder / name).read_bytes() for name in "abc"] == [b"early", b"early", b"late"]
    assert early == [False, False]


def test_a_file_that_is_there_and_passes_is_not_asked_for_again(client: Client) -> None:
    client.get()
    assert client.get() == BODY
    assert len(client.ranges) == 1


def test_a_folder_that_has_everything_may_be_read_only(client: Client) -> None:
    client.get()
    (client.folder / ".lock").unlink()
    client.get()
    assert left(client.folder) == {"file"}
    assert not (client.folder / ".lock").exists()


def test_a_file_that_was_spoilt_on_the_disk_is_fetched_anew(client: Client) -> None:
    client.get()
    (client.folder / "file").write_bytes(b"rot")
    assert client.get(must_be(BODY)) == BODY
    assert len(client.ranges) == 2


def test_after_a_cut_only_the_rest_is_asked_for(server: Server, client: Client) -> None:
    client.script(serve(stop=100_000), serve(stop=50_000))
    assert client.get() == BODY
    assert client.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert [request.if_range for request in server.requests] == [None, '"1"', '"1"']
    assert len(client.waits) == 2


def test_a_line_that_gets_on_is_never_given_up(client: Client) -> None:
    client.script(*[serve(stop=10_000)] * 20)
    assert client.get(failures=1, gain=10_000) == BODY
    assert len(client.ranges) == 21


def test_a_line_that_does_not_get_on_is_given_up_and_its_bytes_are_kept(client: Client) -> None:
    client.script(*[serve(stop=10_000)] * 20)
    with pytest.raises(CorpusError, match="4 failures in a row"):
        client.get(failures=3)
    assert len(client.ranges) == 4
    assert (client.folder / "file.part").read_bytes() == BODY[:40_000]


def test_bytes_of_two_versions_are_not_joined(client: Client) -> None:
    client.script(serve(stop=100_000), serve(OTHER, tag='"2"'))
    assert client.get() == OTHER
    assert client.ranges == [None, "bytes=100000-"]


def test_bytes_of_two_versions_are_not_joined_by_a_server_that_ignores_if_range(client: Client) -> None:
    client.script(serve(stop=100_000), serve(OTHER, tag='"2"', heed=False), serve(OTHER, tag='"2"'))
    assert client.get() == OTHER
    assert client.ranges == [None, "bytes=100000-", None]


def test_a_file_that_grew_under_the_same_tag_is_fetched_whole(client: Client) -> None:
    client.script(serve(stop=100_000), serve(OTHER + BODY), serve(OTHER + BODY))
    assert client.get() == OTHER + BODY
    assert client.ranges == [None, "bytes=100000-", None]


def test_a_file_that_shrank_below_what_is_here_is_fetched_whole(client: Client) -> None:
    client.script(serve(stop=100_000), serve(OTHER[:9], heed=False), serve(OTHER[:9]))
    assert client.get() == OTHER[:9]
    assert client.ranges == [None, "bytes=100000-", None]


def test_an_answer_from_another_place_than_asked_is_not_joined(client: Client) -> None:
    elsewhere = raw(206, BODY[90_000:290_000], ETag='"1"', Content_Range=f"bytes 90000-289999/{len(BODY)}")
    client.script(serve(stop=100_000), elsewhere)
    assert client.get() == BODY
    assert client.ranges == [None, "bytes=100000-", None]


def test_a_server_without_ranges_is_read_from_the_start_again(client: Client) -> None:
    client.script(serve(stop=100_000), raw(200, BODY, ETag='"1"'))
    assert client.get() == BODY
    assert client.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("tag", [None, 'W/"1"', '"é"'], ids=["no tag", "weak tag", "unsendable tag"])
def test_without_a_tag_that_promises_the_same_bytes_nothing_is_joined(client: Client, tag: str | None) -> None:
    client.script(serve(tag=tag, stop=100_000), serve(tag=tag))
    assert client.get() == BODY
    assert client.ranges == [None, None]


def test_the_time_of_the_last_change_serves_where_there_is_no_tag(server: Server, client: Client) -> None:
    def dated(body: bytes, status: int, **headers: str) -> Act:
        return raw(status, body, Last_Modified=EARLIER, **headers)

    end = f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"
    client.script(dated(BODY[:1000], 200, Content_Length=str(len(BODY))), dated(BODY[1000:], 206, Content_Range=end))
    assert client.get() == BODY
    assert server.requests[1] == Request("/file", "bytes=1000-", EARLIER)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_ends_it_at_once_and_names_address_and_mend(server: Server, client: Client, status: int) -> None:
    client.script(raw(status))
    with pytest.raises(CorpusError) as caught:
        client.get()
    assert server.url() in caught.value.problem
    assert str(status) in caught.value.problem
    assert "mirror" in caught.value.mend
    assert len(client.ranges) == 1
    assert client.waits == []


def test_a_password_in_the_address_is_used_but_not_shown(server: Server, client: Client) -> None:
    seen: list[str | None] = []

    def act(handler: Handler) -> None:
        seen.append(handler.headers["Authorization"])
        raw(404)(handler)

    client.script(act)
    with pytest.raises(CorpusError, match="//127") as caught:
        client.fetch([Download(server.url().replace("//", "//me:hush@"), "file", lambda path: None)])
    assert "hush" not in str(caught.value) + "".join(client.lines)
    assert seen[0] is not None


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("7", 7), ("100000", 60), (EARLIER, 0), (LATER, 60), (EARLIER.removesuffix(" GMT"), 0)],
)
def test_the_wait_that_a_busy_server_asks_for_is_kept_within_reason(client: Client, asked: str, waited: float) -> None:
    client.script(raw(429, Retry_After=asked))
    assert client.get() == BODY
    assert client.waits == [waited]


def test_a_wait_that_cannot_be_read_is_as_none(client: Client) -> None:
    client.script(raw(503, Retry_After="soon"))
    assert client.get() == BODY
    assert 0.5 <= client.waits[0] <= 1


def test_waits_double_up_to_the_longest(client: Client) -> None:
    client.script(*[raw(500)] * 5)
    assert client.get(longest=5) == BODY
    bounds = [1, 2, 4, 5, 5]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(client.waits, bounds, strict=True))
    assert len(client.ranges) == 6


def test_waits_are_not_in_step() -> None:
    assert len({Retries().wait(3, None) for _ in range(20)}) == 20


def test_a_server_that_stays_down_is_given_up(client: Client) -> None:
    client.script(*[raw(502)] * 9)
    with pytest.raises(CorpusError, match="3 failures in a row, at last: the server answers 502"):
        client.get(failures=2)
    assert len(client.ranges) == 3


def test_a_machine_without_a_way_to_the_server_learns_the_mend(client: Client) -> None:
    with socket.socket() as taken:  # bound but not listening: nothing answers there
        taken.bind(("127.0.0.1", 0))
        file = Download(f"http://127.0.0.1:{taken.getsockname()[1]}/file", "file", lambda path: None)
        with pytest.raises(CorpusError, match="connection failed") as caught:
            client.fetch([file], mend="carry it over", failures=1)
    assert caught.value.mend == "carry it over"
    assert len(client.waits) == 1


def test_a_server_that_promises_more_than_it_has_is_found_out(client: Client) -> None:
    lie = raw(200, BODY[:1000], ETag='"1"', Content_Length="2000")
    nothing = raw(206, b"", ETag='"1"', Content_Length="0", Content_Range="bytes 1000-1999/2000")
    client.script(lie, nothing, nothing)
    with pytest.raises(CorpusError, match="1000 bytes too soon"):
        client.get(failures=2)
    assert not (client.folder / "file").exists()


def test_a_server_that_sends_more_than_it_said_is_found_out(client: Client) -> None:
    read_to_the_end = threading.Event()

    def overlong(handler: Handler) -> None:
        """Names a range that ends at byte 2,000, and goes on for 50 MB."""
        headers = {"ETag": '"1"', "Content-Range": "bytes 1000-1999/2000", "Transfer-Encoding": "chunked"}
        handler.head(206, headers)
        for _ in range(50):
            handler.wfile.write(b"%x\r\n%s\r\n" % (1_000_000, bytes(1_000_000)))
        read_to_the_end.set()

    client.script(serve(BODY[:2000], stop=1000), overlong, serve(BODY[:2000]))
    assert client.get() == BODY[:2000]
    assert client.ranges == [None, "bytes=1000-", None]
    assert not read_to_the_end.is_set()


def test_a_file_cut_short_by_its_own_header_fails_its_check_and_does_not_stay(client: Client) -> None:
    client.script(*[raw(200, BODY, Content_Length="1000")] * 9)
    with pytest.raises(CorpusError, match=r"not what it must be: file\.part has other bytes"):
        client.get(must_be(BODY))
    assert len(client.ranges) == 2
    assert left(client.folder) == set()


def test_a_corrupt_file_is_fetched_anew_from_its_first_byte(client: Client) -> None:
    client.script(serve(OTHER))
    assert client.get(must_be(BODY)) == BODY
    assert client.ranges == [None, None]


def test_a_body_of_unknown_length_arrives(client: Client) -> None:
    def chunked(handler: Handler) -> None:
        handler.head(200, {"Transfer-Encoding": "chunked"})
        for chunk in (BODY[:1000], BODY[1000:], b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    client.script(chunked)
    assert client.get() == BODY


def test_an_empty_file_arrives(client: Client) -> None:
    client.script(serve(b""))
    assert client.get() == b""


def test_a_body_that_is_packed_unasked_is_refused(client: Client) -> None:
    client.script(raw(200, BODY, Content_Encoding="gzip"))
    with pytest.raises(CorpusError, match="gzip"):
        client.get()


def test_a_silent_connection_counts_as_cut(client: Client) -> None:
    client.script(hang(stop=100_000))
    assert client.get(stall=0.5) == BODY
    assert client.ranges[:2] == [None, "bytes=100000-"]
    assert "nothing came for 0.5 s" in client.lines[1]


def test_a_redirect_is_followed_and_carries_the_range(server: Server, client: Client) -> None:
    there = raw(302, Location="/there")
    client.script(there, there)
    server.script["/there"] = [serve(stop=100_000)]
    assert client.get() == BODY
    assert server.requests[-1] == Request("/there", "bytes=100000-", '"1"')


def test_a_circle_of_redirects_ends(client: Client) -> None:
    client.script(*[raw(302, Location="/file")] * 99)
    with pytest.raises(CorpusError, match="redirects"):
        client.get()
    assert len(client.ranges) < 20


def test_an_address_that_is_none_is_an_error_at_once(client: Client) -> None:
    with pytest.raises(CorpusError, match="protocol"):
        client.fetch([Download("example.org/file", "file", lambda path: None)])
    assert client.waits == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_says_so(client: Client) -> None:
    client.folder.mkdir()
    (client.folder / "file.part").symlink_to("/dev/full")
    with pytest.raises(CorpusError, match="No space left") as caught:
        client.get()
    assert "room" in caught.value.mend
    assert client.waits == []


def test_a_file_that_cannot_fit_is_not_begun(client: Client) -> None:
    client.script(raw(200, BODY, Content_Length=str(10**18)))
    with pytest.raises(CorpusError, match="are free"):
        client.get()
    assert (client.folder / "file.part").stat().st_size == 0


def test_a_failed_file_ends_the_others(server: Server, client: Client) -> None:
    server.script["/slow"] = [hang(stop=10)]
    server.script["/gone"] = [raw(404)]
    files = [Download(server.url(path), path[1:], lambda path: None) for path in ("/slow", "/gone")]
    with pytest.raises(CorpusError, match="404"):
        client.fetch(files)


def test_what_is_complete_but_not_yet_checked_is_not_fetched_again(client: Client) -> None:
    def struck_by_lightning(path: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        client.get(struck_by_lightning)
    assert client.get(must_be(BODY)) == BODY
    assert client.ranges == [None]


@pytest.mark.parametrize("note", ["", "[]", '{"tag": "x"}'])
def test_a_part_with_an_unreadable_note_is_begun_anew(client: Client, note: str) -> None:
    client.folder.mkdir()
    (client.folder / "file.part").write_bytes(OTHER[:1000])
    (client.folder / "file.part.json").write_text(note)
    assert client.get() == BODY
    assert client.ranges == [None]


CHILD = """
import signal, sys
from pathlib import Path
from harness.corpora.fetch import Download, fetch
signal.signal(signal.SIGINT, signal.default_int_handler)
fetch([Download(sys.argv[1], "file", lambda path: None)], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_fetch_that_was_ended_goes_on_where_it_was(client: Client, end: signal.Signals) -> None:
    client.script(hang(stop=501))
    part = client.folder / "file.part"
    command = [sys.executable, "-c", CHILD, client.server.url(), str(client.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == 501):
            assert child.poll() is None
            assert time.monotonic() < deadline
            client.server.closing.wait(0.01)
        child.send_signal(end)
        child.communicate(timeout=20)
    assert child.returncode == -end
    assert client.get() == BODY
    assert client.ranges == [None, "bytes=501-"]


def test_a_second_process_waits_for_the_first(client: Client) -> None:
    client.folder.mkdir()
    asked = threading.Event()
    client.script(lambda handler: asked.set())
    with (client.folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def first() -> None:
            asked.wait(0.2)  # time enough for one that does not wait
            (client.folder / "file").write_bytes(BODY)
            fcntl.flock(lock, fcntl.LOCK_UN)

        def say(line: str) -> None:
            client.lines.append(line)
            if "another process" in line:
                thread.start()

        thread = threading.Thread(target=first)
        fetch([Download(client.server.url(), "file", must_be(BODY))], client.folder, say=say)
        thread.join()
    assert [line for line in client.lines if "another process" not in line] == []
    assert client.ranges == []


def test_where_nobody_looks_on_each_file_is_a_line(client: Client) -> None:
    client.get()
    assert client.lines == [f"fetching 1 of 1 files into {client.folder}", "file: 0.3 MB (1 of 1)"]


def test_on_a_terminal_there_are_bars(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    client.script(serve(stop=100_000))
    assert client.get() == BODY
    assert "file" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_a_large_file_is_whole_after_many_cuts(client: Client) -> None:
    large, dice = random.Random(3).randbytes(5_000_000), random.Random(4)
    client.script(*[serve(large, stop=dice.randrange(200_000)) for _ in range(15)], *[serve(large)] * 9)
    assert hashlib.sha256(client.get(failures=20)).digest() == hashlib.sha256(large).digest()
    assert len(client.ranges) == 16
