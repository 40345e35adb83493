"""The scorer against model servers that keep the protocol, and against such that do not."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model_server import Answer, Server, serving

from harness.corpora.shards import TokenRows
from harness.scoring import client, scorer, wire
from harness.scoring.client import Refused
from harness.scoring.scorer import Measured, chunked, measure, strided

CONTEXT, VOCAB, ROWS = 8, 16, 10


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
def score(rows: TokenRows, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Measured, Server]]:
    """Measures with servers that answer in a given way, the audit's in another; `chunk` rows at a time."""
    monkeypatch.setattr(scorer, "CHUNKS", 1)

    def go(
        answer: Answer = uniform, audit: Answer | None = None, *, chunk: int = 4, val_tokens: int = CONTEXT * ROWS
    ) -> tuple[Measured, Server]:
        monkeypatch.setattr(scorer, "LOGITS_BYTES", chunk * CONTEXT * VOCAB * 4)
        spec = {"context": CONTEXT, "vocab": VOCAB, "device": "cpu", "val_tokens": val_tokens}
        spec |= {"token_bytes": [0] + [2] * (VOCAB - 1)}
        with serving(VOCAB, answer) as (first, server), serving(VOCAB, audit or answer) as (second, _):
            return measure(first, second, rows, spec, lambda: None), server

    return go


def test_a_uniform_model_gets_the_logarithm_of_the_vocabulary(score) -> None:
    measured, _ = score()
    assert measured.val_bpb == pytest.approx(np.log2(VOCAB) / 2)


def test_targets_of_zero_bytes_are_left_out(score) -> None:
    measured, _ = score()
    assert measured.tokens == CONTEXT * ROWS - CONTEXT * ROWS // VOCAB


@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_no_chunk_size_changes_which_tokens_are_scored(score, chunk: int) -> None:
    measured, server = score(chunk=chunk)
    seen = sorted(row.tolist() for row in np.concatenate(server.seen))
    assert seen == sorted([(first + i) % VOCAB for i in range(CONTEXT)] for first in range(0, CONTEXT * ROWS, CONTEXT))
    assert measured.bytes == 2 * measured.tokens


def test_no_chunk_holds_a_row_and_the_one_that_begins_with_its_last_target() -> None:
    for total in (2, 15, 16, 17, 384, 1000):
        for rows in chunked(total, context=256, vocab=2048):
            assert (np.diff(rows) > 1).all()


@pytest.mark.parametrize("total", [1, 7, 16, 100, 384, 2000])
def test_every_row_is_in_one_chunk_and_no_chunk_is_much_smaller(total: int) -> None:
    chunks = chunked(total, context=256, vocab=2048)
    assert sorted(np.concatenate(chunks).tolist()) == list(range(total))
    sizes = [len(rows) for rows in chunks]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) * 256 * 2048 * 4 <= scorer.LOGITS_BYTES


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

    measured, _ = score(half)
    assert measured.val_bpb == pytest.approx(np.log2(VOCAB) / 2)


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


@pytest.mark.parametrize("after", [0, 1])
def test_a_server_that_falls_silent_is_a_timeout(score, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    monkeypatch.setattr(client, "CHUNK_SECONDS" if after else "FIRST_SECONDS", 0.05)
    with pytest.raises(Refused, match="in time") as refused:
        score(lambda server, number, batch: uniform(server, number, batch) if number < after else None)
    assert refused.value.outcome == "timeout"


def leak(server: Server, number: int, batch: np.ndarray) -> None:
    server.sock.sendall(b"secret text of the split, long enough to be a whole reply frame.")


@pytest.mark.parametrize("answers", [(leak, uniform), (uniform, leak)])
def test_a_reason_holds_nothing_the_server_sent(score, answers: tuple[Answer, Answer]) -> None:
    with pytest.raises(Refused) as refused:
        score(*answers)
    assert "secret" not in str(refused.value)
    assert not refused.value.blind


def test_the_end_of_the_audit_is_told_from_the_end_of_pass_1(score) -> None:
    with pytest.raises(Refused, match="ended in the audit, while its model was asked"):
        score(uniform, hang_up)


def test_words_may_be_shown_only_of_a_server_that_saw_no_token(rows: TokenRows) -> None:
    spec = {"context": CONTEXT, "vocab": VOCAB, "device": "cpu", "val_tokens": 80, "token_bytes": [1] * VOCAB}
    dead, theirs = socket.socketpair()
    theirs.close()
    with dead, serving(VOCAB, uniform) as (alive, _):
        with pytest.raises(Refused) as first:
            measure(dead, alive, rows, spec, lambda: None)
        with pytest.raises(Refused) as second:
            measure(alive, dead, rows, spec, lambda: None)
    assert (first.value.blind, second.value.blind) == (True, False)


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

    score(meddle, uniform, val_tokens=CONTEXT)
    assert caught == ["map", "write", "shrink", "grow"]


@pytest.mark.parametrize("kind", [wire.FLOAT32, wire.BFLOAT16])
@pytest.mark.parametrize("places", [None, np.array([3, 17, 4])])
def test_both_ways_to_the_losses_agree_at_the_places_that_are_asked_for(kind: int, places: np.ndarray | None) -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((20, VOCAB)).astype(np.float32)
    raw = wide if kind == wire.FLOAT32 else (wide.view(np.uint32) >> 16).astype(np.uint16)
    targets = rng.integers(0, VOCAB, 20 if places is None else 3)
    logits = client.Logits(kind, memoryview(bytearray(raw.tobytes())), VOCAB)
    # `cpu:0` is a device for torch, and none that numpy is used for.
    on_host, on_device = (scorer.loss_function(name)(logits, targets, places) for name in ("cpu", "cpu:0"))
    np.testing.assert_allclose(on_host, on_device, rtol=1e-5)
