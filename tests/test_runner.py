"""Trials on this machine: every way an honest train.py can end has its outcome (for others: test_hostile.py)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TRAIN

from harness.errors import HarnessError
from harness.machine import Slot
from harness.runners.limits import Limits
from harness.runners.local import LocalRunner
from harness.sandbox.supervisor import descendants
from harness.scoring.bench import Bench
from harness.types import Job, Outcome, Progress, Result

LIMITS = Limits(start=60, train=60, save=60, score=60)


@pytest.fixture
def run(bench: Bench, ruler: str, tmp_path: Path, slot: Slot):
    """Runs one trial of a text; keyword arguments for the runner and the job."""

    def go(
        source: str,
        *,
        budget: str = "steps:6",
        limits: Limits = LIMITS,
        seed: int = 1,
        watch=None,
        arena: str = "arena",
    ) -> Result:
        async def trial() -> Result:
            runner = LocalRunner(bench, budget, [slot], tmp_path / "scratch", arena, limits)
            job = Job("t", 3, 1, 0, seed, source, ruler, tmp_path / "trial")
            return await runner.run(job, watch or (lambda progress: None))

        return asyncio.run(trial())

    return go


def changed(old: str, new: str) -> str:
    assert old in TRAIN
    return TRAIN.replace(old, new)


def test_a_trial_is_trained_and_scored(run, tmp_path: Path) -> None:
    phases: list[Progress] = []
    result = run(TRAIN, watch=phases.append)
    assert result.outcome is Outcome.OK, result.reason
    assert result.val_bpb is not None
    assert 0 < result.val_bpb < 10
    assert (result.steps, result.tokens) == (6, 6 * 128)
    assert result.params == 384 * 16 + 16 * 384 + 384
    assert [p for p in dict.fromkeys(p.phase for p in phases)] == ["starting", "training", "saving", "scoring"]
    assert "val_bpb:" in (tmp_path / "trial/summary.txt").read_text()
    assert not any((tmp_path / "scratch").iterdir())


def test_the_same_seed_gives_the_same_score(run, tmp_path: Path) -> None:
    first = run(TRAIN)
    (tmp_path / "trial/result.json").unlink()
    assert run(TRAIN).val_bpb == first.val_bpb


def test_another_seed_gives_another_score(run) -> None:
    assert run(TRAIN).val_bpb != run(TRAIN, seed=2).val_bpb


def test_a_finished_trial_is_taken_up_from_its_record(run, tmp_path: Path) -> None:
    first = run(TRAIN)
    (tmp_path / "trial/train-again-would-remove-this").touch()
    assert run(TRAIN) == first
    assert (tmp_path / "trial/train-again-would-remove-this").exists()


def test_the_record_of_another_text_is_no_record(run) -> None:
    run(TRAIN)
    assert run(changed("WIDTH = 16", "WIDTH = 8")).params == 384 * 8 + 8 * 384 + 384


CASES = {
    "raises": ("    config = {", "    raise KeyError('no such key')\n    config = {", Outcome.CRASH, "no such key"),
    "does not parse": ("def main():", "def main(:", Outcome.CRASH, "SyntaxError|invalid syntax"),
    "exits early": ("    for step,", "    return\n    for step,", Outcome.INVALID, "without asking for a batch"),
    "stops in mid-budget": ("        loss =", "        if step == 2: break\n        loss =", Outcome.INVALID, "50%"),
    "saves nothing": ("    save_checkpoint(model, config)", "    pass", Outcome.INVALID, "without a checkpoint"),
    "has no build_model for the server": (
        "    save_checkpoint",
        "    config['vocab'] = None\n    save_checkpoint",
        Outcome.BAD_ARTIFACT,
        "before its model was built",
    ),
    "runs out of memory": (
        "    config = {",
        "    torch.empty(1 << 60, dtype=torch.uint8)\n    config = {",
        Outcome.OOM,
        "memory",
    ),
    "is killed by the system": (
        "    config = {",
        "    import os; os.kill(os.getpid(), 9)\n    config = {",
        Outcome.OOM,
        "",
    ),
    "fills the disk": (
        "    config = {",
        "    import errno; raise OSError(errno.ENOSPC, 'No space left on device')\n    config = {",
        Outcome.DISK,
        "No space",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_way_to_end_has_its_outcome(run, case: str) -> None:
    old, new, outcome, reason = CASES[case]
    result = run(changed(old, new))
    assert result.outcome is outcome, result
    assert result.val_bpb is None
    assert re.search(reason, result.reason), result.reason


def test_one_that_sleeps_through_its_budget_is_ended_at_the_limit(run) -> None:
    source = changed("        loss =", "        import time; time.sleep(600)\n        loss =")
    result = run(source, budget="cpu:30", limits=Limits(60, 2, 60, 60))
    assert result.outcome is Outcome.TIMEOUT
    assert "of its budget in 2 s" in result.reason


def test_a_result_of_another_arena_is_not_taken_up(run, tmp_path: Path) -> None:
    run(TRAIN)
    (tmp_path / "trial/of-the-first").touch()
    run(TRAIN, arena="another")
    assert not (tmp_path / "trial/of-the-first").exists()


def test_training_on_one_batch_without_asking_again_is_found_out(run) -> None:
    source = changed(
        "        loss =",
        "        import time\n        until = time.process_time() + 4\n"
        "        while step == 3 and time.process_time() < until: pass\n        loss =",
    )
    result = run(source, budget="cpu:1")
    assert result.outcome is Outcome.TIMEOUT
    assert "before it asked" in result.reason


@pytest.mark.parametrize("victim", ["feeder", "supervisor", "scorer"])
def test_a_trial_whose_helper_is_killed_is_lost_and_never_recorded(run, tmp_path: Path, victim: str) -> None:
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.02):
            for pid in descendants(os.getpid()):
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if f"{victim}".encode() in line.split(b"{")[0]:
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run(TRAIN)
    finally:
        stop.set()
        killer.join()
    assert result.outcome is Outcome.LOST, result
    assert victim in result.reason
    assert not (tmp_path / "trial/result.json").exists()


def test_nonsense_in_the_log_is_ignored(run, tmp_path: Path) -> None:
    source = changed(
        "    save_checkpoint",
        "    from prepare import OUT\n    with open(OUT / 'log.jsonl', 'ab') as f:\n"
        '        f.write(b\'\\xff\\xfe{]\\n[1]\\n{"loss": NaN, "x": 1e999, "deep": \' + b\'[\' * 100000)\n'
        "    save_checkpoint",
    )
    assert run(source).outcome is Outcome.OK
    json.loads((tmp_path / "trial/result.json").read_text())


def test_a_feeder_that_fails_is_no_fault_of_the_text(bench: Bench, ruler: str, tmp_path: Path) -> None:
    class Gone:
        folder, identity = bench.corpus.folder, bench.corpus.identity

        def shards(self, split: str) -> list[Path]:
            return [tmp_path / "no such shard"]

    async def go() -> Result:
        broken = replace(bench, corpus=Gone())  # type: ignore[arg-type]
        runner = LocalRunner(broken, "steps:6", [Slot((0,))], tmp_path / "scratch", "arena", LIMITS)
        return await runner.run(Job("t", 0, 1, 0, 1, TRAIN, ruler, tmp_path / "trial"), lambda progress: None)

    with pytest.raises(HarnessError, match="no such shard"):
        asyncio.run(go())


def test_a_corpus_that_was_rebuilt_in_mid_night_stops_it(bench: Bench, ruler: str, tmp_path: Path) -> None:
    class Before:
        folder, identity = bench.corpus.folder, "text-before"

    async def go() -> Result:
        runner = LocalRunner(
            replace(bench, corpus=Before()), "steps:6", [Slot((0,))], tmp_path / "scratch", "arena", LIMITS
        )  # type: ignore[arg-type]
        return await runner.run(Job("t", 0, 1, 0, 1, TRAIN, ruler, tmp_path / "trial"), lambda progress: None)

    with pytest.raises(HarnessError, match="text-before"):
        asyncio.run(go())


def test_a_cancelled_trial_leaves_no_process(bench: Bench, ruler: str, tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))

    async def go() -> None:
        runner = LocalRunner(bench, "cpu:600", [Slot((0,))], tmp_path / "scratch", "arena", LIMITS)
        training = asyncio.Event()

        def watch(progress: Progress) -> None:
            if progress.phase == "training":
                training.set()

        job = Job("t", 0, 1, 0, 1, TRAIN, ruler, tmp_path / "trial")
        task = asyncio.create_task(runner.run(job, watch))
        await asyncio.wait_for(training.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert not set(descendants(os.getpid())) - before
    assert not any((tmp_path / "scratch").iterdir())
