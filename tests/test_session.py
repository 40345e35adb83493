"""Scoring as a trial does it: two servers, warm or not, one after the other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TRAIN
from safetensors.torch import save_file

from harness.scoring import wire
from harness.scoring.bench import Bench
from harness.scoring.servers import Servers
from harness.scoring.session import Failure, last_line, score
from harness.types import Outcome, Score


@pytest.fixture
def checkpoint(tmp_path: Path, ruler: str, bench: Bench) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "prepare.py").write_text(ruler)
    (folder / "config.json").write_text(json.dumps({"vocab": bench.scale.vocab, "width": 8}))
    torch.manual_seed(5)
    parts = torch.nn.Sequential(torch.nn.Embedding(bench.scale.vocab, 8), torch.nn.Linear(8, bench.scale.vocab))
    save_file(parts.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def warmed(bench: Bench, tmp_path: Path) -> Callable[[Callable[[Servers], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine with warm servers, and ends them."""

    def go(use: Callable[[Servers], Coroutine[Any, Any, Any]]) -> Any:
        async def inside() -> Any:
            servers = await Servers.warm(bench, tmp_path)
            try:
                return await use(servers)
            finally:
                await servers.end()

        return asyncio.run(inside())

    return go


def test_warm_servers_give_the_score_that_others_do_and_are_used_up(
    warmed, bench: Bench, checkpoint: Path, tmp_path: Path
) -> None:
    async def twice(servers: Servers) -> tuple[Score | Failure, Score | Failure]:
        first = await score(bench, checkpoint, tmp_path, warm=servers)
        assert not servers.waiting
        return first, await score(bench, checkpoint, tmp_path, warm=servers)

    first, second = warmed(twice)
    assert isinstance(first, Score), first
    assert isinstance(second, Score), second
    assert (first.val_bpb, first.gap, first.audited) == (second.val_bpb, 0, 16)


def test_servers_that_died_while_they_waited_are_replaced(
    warmed, bench: Bench, checkpoint: Path, tmp_path: Path
) -> None:
    async def killed(servers: Servers) -> Score | Failure:
        os.kill(servers.second.process.pid, signal.SIGKILL)
        await servers.second.process.wait()
        return await score(bench, checkpoint, tmp_path, warm=servers)

    assert isinstance(warmed(killed), Score)


def test_a_checkpoint_that_cannot_be_read_ends_the_servers(
    warmed, bench: Bench, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"no tensors")

    async def tried(servers: Servers) -> Score | Failure:
        failure = await score(bench, checkpoint, tmp_path, warm=servers)
        assert (await servers.first.process.wait()).cut
        assert (await servers.second.process.wait()).cut
        return failure

    assert warmed(tried).outcome == Outcome.BAD_ARTIFACT


def test_the_second_server_begins_only_when_the_first_has_ended(warmed, checkpoint: Path) -> None:
    def ready(server) -> bytes:
        server.sock.settimeout(60)
        return wire.receive(server.sock, wire.READY.size)

    async def changed(servers: Servers) -> None:
        await servers.begin(checkpoint)
        assert await asyncio.to_thread(ready, servers.first) == wire.READY.pack(wire.MAGIC)
        assert servers.second.waiting
        ended = asyncio.create_task(servers.first.process.wait())
        await servers.change()
        assert ended.done()
        assert await asyncio.to_thread(ready, servers.second) == wire.READY.pack(wire.MAGIC)

    warmed(changed)


def test_what_each_server_printed_is_left_beside_the_checkpoint(bench: Bench, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "train.py").write_text(TRAIN.replace("    return nn", "    print('built')\n    return nn"))
    assert isinstance(asyncio.run(score(bench, checkpoint, tmp_path)), Score)
    assert (checkpoint / "server.log").read_text() == "built\n"
    assert (checkpoint / "audit.log").read_text() == "built\n"


def test_a_long_last_line_is_shown_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nRuntimeError: " + "x" * 20_000 + "\n")
    shown = last_line(tmp_path / "log")
    assert shown.startswith("RuntimeError: xxx")
    assert len(shown) == 300
