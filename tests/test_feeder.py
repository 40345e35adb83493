"""The feeder, a real process at the other end of a real socket."""

import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from harness.feeder import BATCH, END, LARGEST_STEP, REFUSED, REPLY, REQUEST, Order

ROOT = Path(__file__).parents[1]
CONTEXT, ROWS = 8, 20
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


class Trainer:
    """Our end of the socket, as the one in prepare.py but without manners."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen) -> None:
        self.socket, self.process, self.memory = sock, process, None

    def ask(self, tokens: int) -> tuple[int, int, int, float]:
        self.socket.sendall(REQUEST.pack(tokens))
        reply, descriptors, _, _ = socket.recv_fds(self.socket, REPLY.size, 1)
        for self.memory in descriptors:
            pass
        return REPLY.unpack(reply)

    def rows(self, tokens: int) -> np.ndarray:
        """The next batch, uint16 [rows, context + 1], copied; empty at the end."""
        status, rows, offset, _ = self.ask(tokens)
        if status == END:
            return np.empty((0, CONTEXT + 1), np.uint16)
        with mmap.mmap(self.memory, 0, prot=mmap.PROT_READ) as memory:
            flat = np.frombuffer(memory[offset : offset + rows * (CONTEXT + 1) * 2], np.uint16)
        return flat.reshape(rows, CONTEXT + 1)

    def all_rows(self, tokens: int) -> np.ndarray:
        batches = [self.rows(tokens)]
        while len(batches[-1]):
            batches.append(self.rows(tokens))
        return np.concatenate(batches)

    def events(self) -> list[dict]:
        """What it told the runner, once it has ended."""
        return [json.loads(line) for line in self.process.stdout]

    def next_event(self, name: str) -> dict:
        for line in self.process.stdout:
            if (event := json.loads(line))["event"] == name:
                return event
        raise AssertionError(f"it ended without {name}")

    def hang_up(self) -> None:
        """As a trainer that ends: its socket closes, and the runner closes the feeder's standard input."""
        self.socket.close()
        self.process.stdin.close()
        assert self.process.wait(20) == 0


@pytest.fixture
def shard(tmp_path) -> Path:
    path = tmp_path / "train.bin"
    np.arange(ROWS * CONTEXT + 1, dtype="<u2").tofile(path)
    return path


@pytest.fixture
def feeding(shard):
    """A context manager: a feeder with a budget and a trainer at its socket."""

    @contextmanager
    def start(budget: str, seed: int = 1, root: int = 0, context: int = CONTEXT) -> Iterator[Trainer]:
        ours, theirs = socket.socketpair()
        orders = {"shards": [str(shard)], "context": context, "seed": seed, "budget": budget}
        orders |= {"root": root or os.getpid(), "socket": theirs.fileno()}
        command = [sys.executable, "-m", "harness.feeder", json.dumps(orders)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with ours, subprocess.Popen(command, cwd=ROOT, text=True, pass_fds=[theirs.fileno()], **pipes) as process:
            theirs.close()
            trainer = Trainer(ours, process)
            try:
                yield trainer
            finally:
                ours.close()
                process.stdin.close()
                if trainer.memory is not None:
                    os.close(trainer.memory)

    return start


# --- order ----------------------------------------------------------------------------------------------------


def test_each_epoch_hands_out_every_row_once(feeding):
    with feeding("steps:10") as trainer:
        rows = trainer.all_rows(4 * CONTEXT)
    starts = rows[:, 0] // CONTEXT
    assert sorted(starts[:ROWS]) == sorted(starts[ROWS:]) == list(range(ROWS))
    assert list(starts[:ROWS]) != list(starts[ROWS:])


def test_a_row_is_a_slice_of_the_shard_with_the_target_of_its_last_token(feeding):
    with feeding("steps:5") as trainer:
        rows = trainer.all_rows(4 * CONTEXT)
    assert len(rows) == ROWS
    assert all((row == row[0] + np.arange(CONTEXT + 1)).all() for row in rows)


def test_the_order_follows_from_the_seed_alone(feeding):
    with feeding("steps:5", seed=3) as small, feeding("wall:60", seed=3) as large, feeding("steps:5", seed=4) as other:
        first = small.all_rows(4 * CONTEXT)
        assert (first == large.rows(20 * CONTEXT)).all()
        assert (first != other.all_rows(4 * CONTEXT)).any()


def test_a_change_of_size_between_steps_skips_no_row(feeding):
    with feeding("steps:3", seed=5) as one, feeding("steps:3", seed=5) as many:
        whole = one.rows(7 * CONTEXT)
        assert (whole == np.concatenate([many.rows(n * CONTEXT) for n in (1, 4, 2)])).all()


def test_a_step_may_be_larger_than_the_corpus(feeding):
    with feeding("steps:1") as trainer:
        assert len(trainer.rows(3 * ROWS * CONTEXT)) == 3 * ROWS


def test_the_same_position_is_the_same_row_whenever_it_is_asked_for():
    forwards, backwards = Order(7, 1), Order(7, 1)
    assert [forwards[i] for i in range(21)] == [backwards[i] for i in reversed(range(21))][::-1]


def test_a_corpus_without_a_whole_row_is_refused_in_words(feeding, shard):
    shard.write_bytes(b"\0" * 8)
    with feeding("steps:1") as trainer:
        assert trainer.process.wait(20) == 1
        assert "less than one row" in trainer.process.stderr.read()


# --- clock ----------------------------------------------------------------------------------------------------


def test_a_steps_budget_hands_out_so_many_batches(feeding):
    with feeding("steps:3") as trainer:
        replies = [trainer.ask(CONTEXT) for _ in range(5)]
        trainer.hang_up()
        events = trainer.events()
    assert [status for status, *_ in replies] == [BATCH, BATCH, BATCH, END, END]
    assert [progress for *_, progress in replies] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert [event["event"] for event in events if event["event"] != "progress"] == ["start", "end", "stopped", "closed"]
    assert (events[-1]["steps"], events[-1]["tokens"]) == (3, 3 * CONTEXT)


def test_a_wall_budget_ends_though_nobody_asks(feeding):
    with feeding("wall:0.2") as trainer:
        assert trainer.ask(CONTEXT)[3] == 0.0
        end = trainer.next_event("end")
        assert 0.2 <= end["seconds"] < 5
        assert (end["steps"], end["fraction"]) == (1, 1.0)
        assert trainer.ask(CONTEXT)[0] == END


def test_a_cpu_budget_counts_the_time_of_the_tree_and_not_the_time_that_passes(feeding):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        with feeding("cpu:0.2", root=idle.pid) as trainer:
            trainer.ask(CONTEXT)
            began = time.monotonic()
            while time.monotonic() - began < 0.4:
                assert trainer.ask(CONTEXT)[0] == BATCH
            assert trainer.ask(CONTEXT)[3] < 1
        idle.communicate()


def test_a_cpu_budget_is_spent_by_work_in_the_tree(feeding):
    with feeding("cpu:0.2") as trainer:
        seen = [trainer.ask(CONTEXT)]
        with subprocess.Popen([sys.executable, "-c", BURN.format(seconds=20)]) as worker:
            while seen[-1][0] == BATCH:
                seen.append(trainer.ask(CONTEXT))
            worker.kill()
    assert [progress for *_, progress in seen] == sorted(progress for *_, progress in seen)
    assert seen[0][3] == 0.0


def test_the_work_of_the_supervisor_is_not_charged(feeding):
    with feeding("cpu:0.1") as trainer:  # this process stands for it, as the root of the tree
        trainer.ask(CONTEXT)
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        assert trainer.ask(CONTEXT)[0] == BATCH


def test_the_clock_starts_with_the_first_request(feeding):
    with feeding("wall:0.3") as trainer:
        began = time.monotonic()
        while time.monotonic() - began < 0.4:
            pass
        assert trainer.ask(CONTEXT)[0] == BATCH


# --- a hostile trainer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 1, CONTEXT + 1, LARGEST_STEP + CONTEXT, 2**63, 2**64 - CONTEXT])
def test_a_size_out_of_range_is_refused_and_starts_no_clock(feeding, tokens):
    with feeding("steps:1") as trainer:
        assert trainer.ask(tokens) == (REFUSED, 0, 0, 0.0)
        assert trainer.memory is None
        trainer.hang_up()
        assert [event["event"] for event in trainer.events()] == ["closed"]


def test_the_largest_step_is_handed_out(feeding):
    with feeding("steps:1", context=64) as trainer:
        assert trainer.ask(LARGEST_STEP)[:2] == (BATCH, LARGEST_STEP // 64)


def test_half_a_request_is_waited_for_and_no_more(feeding):
    with feeding("wall:0.2") as trainer:
        trainer.ask(CONTEXT)
        trainer.socket.send(b"\x08\0\0")
        assert trainer.next_event("end")  # the clock ran on
        trainer.hang_up()


def test_a_trainer_that_never_reads_its_answers_is_left(feeding):
    with feeding("wall:60") as trainer:
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:
                trainer.socket.send(REQUEST.pack(CONTEXT))
        assert trainer.next_event("progress")  # the clock runs on
        trainer.hang_up()


def test_descriptors_sent_to_the_feeder_do_not_stay(feeding):
    with feeding("wall:60") as trainer:
        trainer.ask(CONTEXT)
        before = len(os.listdir(f"/proc/{trainer.process.pid}/fd"))
        for _ in range(5):
            socket.send_fds(trainer.socket, [REQUEST.pack(CONTEXT)], [0, 1, 2])
            assert len(trainer.socket.recv(REPLY.size)) == REPLY.size
        assert len(os.listdir(f"/proc/{trainer.process.pid}/fd")) == before


def test_the_trainer_can_neither_write_nor_resize_the_batches(feeding):
    with feeding("wall:60") as trainer:
        trainer.ask(CONTEXT)
        with pytest.raises(PermissionError):
            mmap.mmap(trainer.memory, 0)
        with pytest.raises(PermissionError):
            os.pwrite(trainer.memory, b"x", 0)
        size = os.fstat(trainer.memory).st_size
        for other in (0, size - 4096, size + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(trainer.memory, other)
        again = os.open(f"/proc/self/fd/{trainer.memory}", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                mmap.mmap(again, 0)
        finally:
            os.close(again)


def test_no_row_is_in_reach_before_the_clock_runs(feeding):
    with feeding("steps:2") as trainer:
        trainer.ask(0)
        assert trainer.memory is None
        trainer.ask(CONTEXT)
        assert trainer.memory is not None


# --- the end --------------------------------------------------------------------------------------------------


def test_a_trainer_that_leaves_early_is_reported_with_how_far_it_came(feeding):
    with feeding("steps:10") as trainer:
        trainer.ask(2 * CONTEXT)
        trainer.ask(2 * CONTEXT)
        trainer.hang_up()
        last = trainer.events()[-1]
    assert (last["event"], last["steps"], last["tokens"], last["fraction"]) == ("closed", 2, 4 * CONTEXT, 0.2)


def test_work_after_the_end_is_seen(feeding):
    with feeding("cpu:0.05") as trainer:
        trainer.ask(CONTEXT)
        subprocess.run([sys.executable, "-c", BURN.format(seconds=0.1)], check=True)
        assert trainer.ask(CONTEXT)[0] == END
        subprocess.run([sys.executable, "-c", BURN.format(seconds=0.5)], check=True)
        trainer.hang_up()
        stopped, closed = trainer.events()[-2:]
    assert (stopped["event"], closed["event"]) == ("stopped", "closed")
    assert closed["seconds"] - stopped["seconds"] > 0.4


def test_it_ends_when_the_harness_is_gone(feeding):
    with feeding("wall:60") as trainer:
        trainer.ask(CONTEXT)
        trainer.process.stdin.close()
        assert trainer.process.wait(20) == 0


def test_it_says_nothing_when_nobody_listens_any_more(feeding):
    with feeding("wall:60") as trainer:
        trainer.process.stdout.close()
        trainer.socket.send(REQUEST.pack(CONTEXT))
        assert trainer.process.wait(20) == 0
        assert trainer.process.stderr.read() == ""
