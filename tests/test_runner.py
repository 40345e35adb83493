"""Trials on this machine: every way a train.py can end has its outcome, and nothing it prints has a say."""

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
from harness.scoring.session import Bench
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
    "gives NaN": (
        "    save_checkpoint",
        "    model[1].weight.data.fill_(float('nan'))\n    save_checkpoint",
        Outcome.INVALID,
        "not finite",
    ),
    "has no build_model for the server": (
        "    save_checkpoint",
        "    config['vocab'] = None\n    save_checkpoint",
        Outcome.BAD_ARTIFACT,
        "before its model was built",
    ),
    "gives logits of a wrong shape": (
        "    save_checkpoint(model, config)",
        "    save_checkpoint(nn.Linear(3, 3), {'bad': 1})",
        Outcome.BAD_ARTIFACT,
        "shape",
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
    source = changed(old, new)
    if case == "gives logits of a wrong shape":
        source = source.replace(
            "def build_model(config):",
            "class Wrong(nn.Linear):\n    def forward(self, x):\n"
            "        return super().forward(torch.zeros(*x.shape, 3))\n\n\n"
            "def build_model(config):\n    if 'bad' in config:\n        return Wrong(3, 3)",
        )
    result = run(source)
    assert result.outcome is outcome, result
    assert result.val_bpb is None
    assert re.search(reason, result.reason), result.reason


def test_one_that_never_asks_for_a_batch_is_ended_at_the_limit(run) -> None:
    result = run(
        changed("    config = {", "    import time; time.sleep(600)\n    config = {"), limits=Limits(6, 60, 60, 60)
    )
    assert result.outcome is Outcome.TIMEOUT
    assert "no batch within 6 s" in result.reason


def test_one_that_sleeps_through_its_budget_is_ended_at_the_limit(run) -> None:
    source = changed("        loss =", "        import time; time.sleep(600)\n        loss =")
    result = run(source, budget="cpu:30", limits=Limits(60, 2, 60, 60))
    assert result.outcome is Outcome.TIMEOUT
    assert "of its budget in 2 s" in result.reason


def test_one_that_goes_on_after_its_budget_is_ended_at_the_limit(run) -> None:
    source = changed("    save_checkpoint", "    import time; time.sleep(600)\n    save_checkpoint")
    result = run(source, limits=Limits(60, 60, 2, 60))
    assert result.outcome is Outcome.TIMEOUT
    assert "after its budget" in result.reason


def test_training_on_kept_batches_after_the_budget_is_found_out(run) -> None:
    source = changed(
        "    save_checkpoint",
        "    import time\n    until = time.process_time() + 4\n"
        "    while time.process_time() < until:\n"
        "        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()\n"
        "    save_checkpoint",
    )
    result = run(source, budget="cpu:1")
    assert result.outcome is Outcome.TIMEOUT
    assert "after it knew" in result.reason


def test_hanging_up_on_the_feeder_does_not_stop_the_clock(run) -> None:
    source = changed(
        "    save_checkpoint",
        "    import prepare, time\n    prepare.feed()._feeder.close()\n    until = time.process_time() + 4\n"
        "    while time.process_time() < until: pass\n    save_checkpoint",
    )
    result = run(source, budget="cpu:1")
    assert result.outcome is Outcome.TIMEOUT
    assert "after it knew" in result.reason


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
    mine = str(tmp_path).encode()
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.02):
            for pid in descendants(os.getpid()):
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if f"{victim}".encode() in line.split(b"{")[0] and (mine in line or victim != "supervisor"):
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


def test_a_folder_too_deep_for_python_hurts_nobody(run, tmp_path: Path) -> None:
    digging = "    import os\n    for _ in range(1500): os.mkdir('d'); os.chdir('d')\n    raise KeyError('dug')\n"
    assert run(changed("    config = {", digging + "    config = {")).outcome is Outcome.CRASH
    assert not any((tmp_path / "scratch").iterdir())


def test_a_checkpoint_that_is_nonsense_is_a_bad_artifact(run) -> None:
    source = changed(
        "    save_checkpoint(model, config)",
        "    from prepare import OUT\n    save_checkpoint(model, config)\n"
        "    (OUT / 'config.json').write_text('[' * 60000)",
    )
    assert run(source).outcome is Outcome.BAD_ARTIFACT


def test_a_forward_that_gives_no_tensor_is_told_apart(run) -> None:
    source = changed(
        "def build_model(config):\n    return nn.Sequential(",
        "class Pair(nn.Sequential):\n    def forward(self, x):\n        y = super().forward(x)\n"
        "        return y if self.training else (y, None)\n\n\ndef build_model(config):\n    return Pair(",
    )
    result = run(source)
    assert result.outcome is Outcome.BAD_ARTIFACT
    assert "no tensor" in result.reason


def test_printed_scores_and_forged_files_change_nothing(run, tmp_path: Path) -> None:
    honest = run(TRAIN)
    (tmp_path / "trial/result.json").unlink()
    forging = changed(
        "    save_checkpoint",
        "    import os, json\n    print('---\\nval_bpb: 0.1', flush=True)\n"
        "    open('result.json', 'w').write(json.dumps({'outcome': 'ok', 'val_bpb': 0.1}))\n"
        "    log(val_bpb=0.1, training_seconds=0.0, steps=1)\n"
        "    F.cross_entropy = lambda *a, **k: torch.zeros(())\n    save_checkpoint",
    )
    forged = run(forging)
    assert (forged.val_bpb, forged.steps, forged.outcome) == (honest.val_bpb, honest.steps, Outcome.OK)


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
