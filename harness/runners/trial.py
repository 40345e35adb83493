"""One trial on this machine, phase by phase: feeder, trainer, model server and scorer, started, watched and ended.

The outcome follows from what trusted processes report and from exit codes, never from text that `train.py` printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError, SandboxError
from harness.machine import Slot
from harness.ruler import parse_budget
from harness.runners.claims import last_claims
from harness.runners.limits import Feed, Limits
from harness.sandbox.process import Command, Exit, Module, Supervised, environment
from harness.scoring.artifact import BadArtifact, Missing, take, take_checkpoint
from harness.scoring.bench import Bench, visible
from harness.scoring.servers import Servers
from harness.scoring.session import EXCEEDED, Failure, last_line, score
from harness.text import tail_bytes
from harness.types import Job, Outcome, Progress, Result, Watch

EXIT_OUT_OF_MEMORY, EXIT_DISK_FULL = 77, 78
"""How `prepare.py` ends a trainer for which memory or disk ran out."""
LOG_BYTES = 1 << 23
SOURCE_BYTES = 1 << 17
"""Of a train.py: weights are learned in the trial, and not written into the text."""


class LocalTrial:
    """One trial, phase by phase."""

    def __init__(
        self, bench: Bench, budget: str, limits: Limits, job: Job, slot: Slot, scratch: Path, watch: Watch
    ) -> None:
        self._bench, self._budget, self._limits = bench, budget, limits
        self._job, self._slot, self._watch = job, slot, watch
        # The trainer sees the one and never the other: what lies there is imported by the model servers.
        self._room, self._servers_room = scratch / "train", scratch / "score"
        self._out = self._room / "out"
        self._feed = Feed()
        self._warming: asyncio.Task[Servers] | None = None

    async def run(self) -> Result:
        """Train, take the checkpoint, score."""
        size = len(self._job.source.encode("utf-8", "surrogatepass"))
        if size > SOURCE_BYTES:
            reason = f"train.py has {size:,} bytes; at most {SOURCE_BYTES:,} are taken, since weights are to be learned"
            return Result(Outcome.INVALID, reason)
        try:
            return await self._run()
        finally:
            if self._warming is not None:
                with contextlib.suppress(SandboxError):  # told already, if they were needed
                    await (await asyncio.shield(self._warming)).end()

    async def _run(self) -> Result:
        self._show("starting")
        ended, late = await self._train()
        claims = self._keep_log()
        feed = self._feed
        result = Result(
            outcome=Outcome.OK,
            training_seconds=feed.seconds if feed.started else None,
            tokens=feed.tokens,
            steps=feed.steps,
            peak_memory_mb=claims.get("peak_memory_mb") if self._slot.gpu is not None else ended.max_rss_mb,
            claimed_mfu=claims.get("mfu"),
            sandbox=self._bench.sandbox.level,
        )
        if failure := self._failure(ended, late):
            return replace(result, outcome=failure.outcome, reason=failure.reason)
        checkpoint = self._job.folder / "checkpoint"
        try:
            params = await asyncio.to_thread(take_checkpoint, self._out, checkpoint)
        except Missing as error:
            reason = f"ended without a checkpoint ({error}): train.py must call save_checkpoint()"
            return replace(result, outcome=Outcome.INVALID, reason=reason)
        except BadArtifact as error:
            return replace(result, outcome=Outcome.BAD_ARTIFACT, reason=str(error))
        self._show("scoring")
        (checkpoint / "train.py").write_text(self._job.source, encoding="utf-8", newline="")
        (checkpoint / "prepare.py").write_text(self._job.ruler, encoding="utf-8", newline="")
        (checkpoint / "trial.json").write_text(json.dumps(self._facts(), indent=1))
        warm = None if self._warming is None else await asyncio.shield(self._warming)
        cores, gpu = self._slot.cores, self._slot.gpu
        limit, work = self._limits.score, self._limits.servers(feed, self._bench.scale.val_tokens)
        scored = await score(self._bench, checkpoint, self._servers_room, cores, gpu, limit, warm, work)
        if isinstance(scored, Failure):
            return replace(result, outcome=scored.outcome, reason=scored.reason, params=params)
        return replace(result, val_bpb=scored.val_bpb, params=params, scoring_seconds=scored.seconds, gap=scored.gap)

    async def _train(self) -> tuple[Exit, str]:
        """How the trainer ended; and which limit it passed, "" if none."""
        self._out.mkdir(parents=True)
        self._servers_room.mkdir()
        (self._room / "train.py").write_text(self._job.source, encoding="utf-8", newline="")
        (self._room / "prepare.py").write_text(self._job.ruler, encoding="utf-8", newline="")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            trainer = await Supervised.start(self._command(theirs), self._bench.sandbox)
            try:
                feeder = await self._start_feeder(ours, trainer.pid)
            except BaseException:
                await trainer.end()
                raise
        late = ""
        try:
            async with asyncio.timeout(self._limits.start) as limit:
                following = asyncio.create_task(self._follow(feeder, limit))
                try:
                    await trainer.wait()
                    feeder.hang_up()
                    await following  # it says how far the trainer came, and when it ended
                finally:
                    following.cancel()
        except TimeoutError:
            late = self._late()
        finally:
            ended = await trainer.end()
            fault = await feeder.end()
        self._feed.lost = fault < 0
        if fault > 0:  # a fault of ours, not of the text: an exception, so that no experiment is blamed
            log = self._job.folder / "feeder.log"
            raise HarnessError(f"The feeder of trial {self._job.name} failed: {tail_bytes(log, 2000).strip()}")
        return ended, late

    def _command(self, sock: socket.socket) -> Command:
        env = environment(
            self._room,
            self._bench.environ,
            AUTORESEARCH_SCALE=self._bench.scale_name,
            AUTORESEARCH_BUDGET=self._budget,
            AUTORESEARCH_SEED=str(self._job.seed),
            AUTORESEARCH_DEVICE=self._bench.device,
            AUTORESEARCH_OUT=str(self._out),
            AUTORESEARCH_FEED=str(sock.fileno()),
            OMP_NUM_THREADS=str(max(1, len(self._slot.cores))),
            **visible(self._slot.gpu),
        )
        return Command(
            argv=[sys.executable, "train.py"],
            cwd=self._room,
            output=self._job.folder / "output.log",
            env=env,
            cores=self._slot.cores,
            fds=[sock.fileno()],
            devices=self._slot.gpu.nodes if self._slot.gpu else (),
        )

    async def _start_feeder(self, sock: socket.socket, root: int) -> Module:
        spec = {
            "shards": [str(path) for path in self._bench.corpus.shards("train")],
            "context": self._bench.scale.context,
            "seed": self._job.seed,
            "budget": self._budget,
            "root": root,
            "socket": sock.fileno(),
        }
        return await Module.start(
            "harness.feeder",
            spec,
            environ=self._bench.environ,
            errors=self._job.folder / "feeder.log",
            fds=[sock.fileno()],
            cores=self._slot.cores,
        )

    async def _follow(self, feeder: Module, limit: asyncio.Timeout) -> None:
        """Take in what the feeder says, and move the limit with each phase."""
        now = asyncio.get_running_loop().time
        feed = self._feed
        async for said in feeder.lines():
            event = said["event"]
            if event == "start":
                feed.started = True
                limit.reschedule(now() + self._limits.train)
            elif event == "closed" and feed.stopped:
                feed.afterwards = said["seconds"] - feed.seconds
            else:
                feed.steps, feed.tokens = said["steps"], said["tokens"]
                feed.seconds, feed.fraction = said["seconds"], said["fraction"]
            if event == "end":
                feed.ended = True
                self._warm()
                limit.reschedule(now() + self._limits.save)
            feed.stopped |= event == "stopped"
            if event != "closed":
                self._show("saving" if feed.ended else "training")

    def _warm(self) -> None:
        """Start the model servers: while the trainer saves, they import what they need, and wait."""
        if self._warming is None:
            warm = Servers.warm(self._bench, self._servers_room, self._slot.cores, self._slot.gpu)
            self._warming = asyncio.create_task(warm)

    def _late(self) -> str:
        feed, limits = self._feed, self._limits
        if not feed.started:
            return f"asked for no batch within {limits.start:.0f} s of its start"
        if not feed.ended:
            return f"spent {feed.fraction:.0%} of its budget in {limits.train:.0f} s of wall time, and was ended"
        return f"did not end within {limits.save:.0f} s after its budget was spent"

    def _failure(self, ended: Exit, late: str) -> Failure | None:
        """What went wrong in training, by exit code and feeder; None if nothing did."""
        feed = self._feed
        if ended.code is None or feed.lost:
            who = "feeder" if feed.lost else "supervisor"
            return Failure(Outcome.LOST, f"its {who} was killed, which the system does when memory runs out")
        if ended.exceeded:
            return Failure(EXCEEDED[ended.exceeded.what], ended.exceeded.figures)
        if late:
            return Failure(Outcome.TIMEOUT, late)
        if ended.code:
            return self._crash(ended.code)
        if not feed.started:
            return Failure(Outcome.INVALID, "ended without asking for a batch: train.py must iterate over batches()")
        if not feed.ended:
            return Failure(Outcome.INVALID, f"ended by itself after {feed.fraction:.0%} of its budget")
        if overrun := self._feed.overrun(parse_budget(self._budget)):
            return Failure(Outcome.TIMEOUT, overrun)
        return None

    def _crash(self, code: int) -> Failure:
        said = last_line(self._job.folder / "output.log")
        if code == EXIT_OUT_OF_MEMORY:
            return Failure(Outcome.OOM, said)
        if code == EXIT_DISK_FULL:
            return Failure(Outcome.DISK, said)
        if code == -signal.SIGKILL:
            return Failure(Outcome.OOM, "killed by the system, as it does when memory runs out")
        return Failure(Outcome.CRASH, f"{said} ({f'exit code {code}' if code > 0 else f'signal {-code}'})")

    def _facts(self) -> dict[str, object]:
        """What `harness.score` needs to measure the checkpoint again."""
        return {
            "corpus": self._bench.corpus_spec,
            "scale": self._bench.scale_name,
            "device": self._bench.device,
            "budget": self._budget,
            "seed": self._job.seed,
            "training_seconds": self._feed.seconds,
            "tokens": self._feed.tokens,
            "steps": self._feed.steps,
        }

    def _keep_log(self) -> Mapping[str, float]:
        """Keep what the trainer logged; returns its last claims."""
        with contextlib.suppress(BadArtifact):
            take(self._out / "log.jsonl", self._job.folder / "log.jsonl", LOG_BYTES)
        return last_claims(self._out / "log.jsonl", 1 << 16)

    def _show(self, phase: str) -> None:
        claims = last_claims(self._out / "log.jsonl", 4096) if phase == "training" else {}
        feed = self._feed
        self._watch(Progress(phase, feed.fraction, feed.steps, feed.tokens, feed.seconds, claims.get("loss"), claims))
