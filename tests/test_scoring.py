"""The scorer against model servers that keep the protocol, and against such that do not."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.corpora.shards import TokenRows
from harness.scoring import scorer, wire
from harness.scoring.bits import Tally
from harness.scoring.scorer import Refused, measure, strided

CONTEXT, VOCAB, ROWS = 8, 16, 10

Answer = Callable[["Server", int, np.ndarray], None]


class Server:
    """The other side of the socket, in a thread: answers with uniform logits unless told otherwise."""

    def __init__(self, sock: socket.socket, answer: Answer) -> None:
        self.sock, self.answer = sock, answer
        self.seen: list[np.ndarray] = []
        self.descriptors: list[int] = []

    def run(self) -> None:
        try:
            self.sock.sendall(wire.READY.pack(wire.MAGIC))
            hello, self.descriptors, _, _ = socket.recv_fds(self.sock, wire.HELLO.size, 2)
            _, most, context, vocab = wire.HELLO.unpack(hello)
            tokens = mmap.mmap(self.descriptors[0], most * context * 2, prot=mmap.PROT_READ)
            self.logits = mmap.mmap(self.descriptors[1], most * context * vocab * 4)
            while True:
                _, number, rows = wire.REQUEST.unpack(wire.receive(self.sock, wire.REQUEST.size))
                batch = np.frombuffer(tokens[: rows * context * 2], np.uint16).reshape(rows, context)
                self.seen.append(batch.copy())
                self.answer(self, number, batch)
        except (EOFError, OSError):
            pass
        finally:
            self.sock.close()

    def reply(self, number: int, kind: int, *shape: int) -> None:
        self.sock.sendall(wire.REPLY.pack(wire.MAGIC, number, kind, *shape))


def uniform(server: Server, number: int, batch: np.ndarray) -> None:
    size = batch.size * VOCAB * 4
    server.logits[:size] = bytes(size)
    server.reply(number, wire.FLOAT32, *batch.shape, VOCAB)


@pytest.fixture
def rows(tmp_path: Path) -> TokenRows:
    tokens = np.arange(CONTEXT * ROWS + 1, dtype="<u2") % VOCAB
    tokens.tofile(tmp_path / "00000.bin")
    return TokenRows([tmp_path / "00000.bin"], CONTEXT)


@pytest.fixture
def score(rows: TokenRows, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Tally, Server]]]:
    """Measures with a server that answers in a given way; `chunk` rows at a time."""
    started: list[threading.Thread] = []
    descriptors: list[int] = []

    def go(answer: Answer = uniform, *, chunk: int = 4, val_tokens: int = CONTEXT * ROWS) -> tuple[Tally, Server]:
        monkeypatch.setattr(scorer, "LOGITS_BYTES", chunk * CONTEXT * VOCAB * 4)
        ours, theirs = socket.socketpair()
        server = Server(theirs, answer)
        thread = threading.Thread(target=server.run)
        thread.start()
        started.append(thread)
        spec = {"context": CONTEXT, "vocab": VOCAB, "device": "cpu", "val_tokens": val_tokens}
        try:
            with ours:
                tally = measure(ours, rows, {**spec, "token_bytes": [0] + [2] * (VOCAB - 1)})
        finally:
            thread.join(20)
            descriptors.extend(server.descriptors)
        return tally, server

    yield go
    for fd in descriptors:
        os.close(fd)


def test_a_uniform_model_gets_the_logarithm_of_the_vocabulary(score) -> None:
    tally, _ = score()
    assert tally.bits_per_byte == pytest.approx(np.log2(VOCAB) / 2)


def test_targets_of_zero_bytes_are_left_out(score) -> None:
    tally, _ = score()
    assert tally.tokens == CONTEXT * ROWS - CONTEXT * ROWS // VOCAB


@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_no_chunk_size_changes_which_tokens_are_scored(score, chunk: int) -> None:
    tally, server = score(chunk=chunk)
    assert np.concatenate(server.seen).reshape(-1).tolist() == [i % VOCAB for i in range(CONTEXT * ROWS)]
    assert tally.bytes == 2 * tally.tokens


def test_the_last_target_of_a_row_is_never_sent_with_it(score, rows: TokenRows) -> None:
    _, server = score(val_tokens=CONTEXT)
    (sent,) = server.seen
    assert sent.shape == (1, CONTEXT)


def test_rows_are_strided_over_the_whole_split() -> None:
    assert strided(100, 4).tolist() == [0, 25, 50, 75]
    assert strided(3, 10).tolist() == [0, 1, 2]


def test_bfloat16_logits_are_taken(score) -> None:
    def half(server: Server, number: int, batch: np.ndarray) -> None:
        size = batch.size * VOCAB * 2
        server.logits[:size] = bytes(size)
        server.reply(number, wire.BFLOAT16, *batch.shape, VOCAB)

    tally, _ = score(half)
    assert tally.bits_per_byte == pytest.approx(np.log2(VOCAB) / 2)


def poisoned(server: Server, number: int, batch: np.ndarray) -> None:
    server.logits[: batch.size * VOCAB * 4] = np.full(batch.size * VOCAB, np.nan, np.float32).tobytes()
    server.reply(number, wire.FLOAT32, *batch.shape, VOCAB)


def hang_up(server: Server, number: int, batch: np.ndarray) -> None:
    server.sock.shutdown(socket.SHUT_RDWR)


REFUSED = {
    "a wrong shape": (lambda s, n, b: s.reply(n, wire.FLOAT32, b.shape[0], 1, VOCAB), "bad_artifact", "shape"),
    "another type": (lambda s, n, b: s.reply(n, wire.OTHER, *b.shape, VOCAB), "bad_artifact", "no tensor"),
    "a type that does not exist": (lambda s, n, b: s.reply(n, 77, *b.shape, VOCAB), "bad_artifact", "no tensor"),
    "another chunk's number": (lambda s, n, b: s.reply(n + 1, 0, *b.shape, VOCAB), "bad_artifact", "protocol"),
    "noise": (lambda s, n, b: s.sock.sendall(os.urandom(wire.REPLY.size)), "bad_artifact", "protocol"),
    "half a reply": (lambda s, n, b: (s.sock.sendall(b"AR"), hang_up(s, n, b)), "bad_artifact", "ended"),
    "nothing any more": (hang_up, "bad_artifact", "ended while"),
    "NaN": (poisoned, "invalid", "not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_answer_that_is_no_score_is_refused(score, case: str) -> None:
    answer, outcome, reason = REFUSED[case]
    with pytest.raises(Refused, match=reason) as refused:
        score(answer)
    assert refused.value.outcome == outcome


def test_a_server_that_stays_silent_is_a_timeout(score, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "CHUNK_SECONDS", 0.05)
    with pytest.raises(Refused, match="in time") as refused:
        score(lambda server, number, batch: None)
    assert refused.value.outcome == "timeout"


def test_a_reason_holds_nothing_the_server_sent(score) -> None:
    with pytest.raises(Refused) as refused:
        score(lambda s, n, b: s.sock.sendall(b"secret text of the split, long enough to be a whole reply frame."))
    assert "secret" not in str(refused.value)


def test_the_server_cannot_write_the_tokens_nor_resize_a_buffer(score) -> None:
    caught: list[str] = []

    def meddle(server: Server, number: int, batch: np.ndarray) -> None:
        tokens, logits = server.descriptors
        attempts: dict[str, Callable[[], object]] = {
            "map": lambda: mmap.mmap(tokens, 16),
            "write": lambda: os.pwrite(tokens, b"x", 0),
            "shrink": lambda: os.ftruncate(logits, 1),
            "grow": lambda: os.ftruncate(logits, 1 << 30),
        }
        for name, attempt in attempts.items():
            try:
                attempt()
            except OSError:
                caught.append(name)
        uniform(server, number, batch)

    score(meddle, val_tokens=CONTEXT)
    assert caught == ["map", "write", "shrink", "grow"]
