"""One night, put together: parts made, loop run, leaderboard shown."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from time import time

from harness import corpora, researchers, start
from harness.git import Repository
from harness.ledger import Ledger
from harness.live import Heading, open_view
from harness.loop import Loop, Parts
from harness.reading import ledger_path
from harness.runners.local import LocalRunner
from harness.scoring.bench import Bench
from harness.settings import Settings
from harness.types import Arena, Researcher

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def spend(asked: start.Asked, folder: Path, environ: Mapping[str, str]) -> int:
    """Resolve, prepare, research, report. Returns an exit code; raises `HarnessError`."""
    repository = Repository.open(folder)
    with Ledger.open(ledger_path(repository.root)) as ledger:
        plan = start.plan(asked, repository, ledger, environ, time())
        settings = plan.settings
        for name, text in start.in_words(plan):
            print(f"  {name:<11}{text}", flush=True)
        researcher = researchers.create(settings.researcher, settings)
        with ledger.lock(settings.tag):
            corpus = corpora.prepare(settings.corpus, plan.scale.vocab, settings.cache, mirror=plan.mirror)
            corpora.see_that_nothing_is_shown(corpus)
            arena = start.arena(plan, corpus)
            start.begin(plan, arena, ledger, repository)
            finished = research(plan, arena, corpus, ledger, repository, researcher, environ)
            if finished:
                ledger.finish(settings.tag)
    report(settings)
    return 0 if finished else 130


def research(
    plan: start.Plan,
    arena: Arena,
    corpus: corpora.Corpus,
    ledger: Ledger,
    repository: Repository,
    researcher: Researcher,
    environ: Mapping[str, str],
) -> bool:
    """Run the loop to its end; False if it was told to stop before."""
    settings = plan.settings
    bench = Bench(corpus, settings.corpus, plan.scale, settings.scale, settings.device, environ, plan.sandbox)
    runner = LocalRunner(bench, settings.budget, plan.slots, scratch(settings), arena.key)
    heading = Heading(settings.tag, settings.researcher, start.until(settings), ledger.experiments(settings.tag))
    with open_view(sys.stdout, heading) as view:
        loop = Loop(Parts(settings, arena, plan.ruler, ledger, repository, runner, researcher, view))
        return asyncio.run(until_stopped(loop))


async def until_stopped(loop: Loop) -> bool:
    """The night, ended early and in order by the first signal that asks for it."""
    night = asyncio.create_task(loop.night())
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:  # a second one must not cut short what ends the trials
            loop.view.say("Stopping: the trials that run are being ended.")
        else:
            asked = True
            night.cancel()

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means that a hang-up changes nothing
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await night
    except asyncio.CancelledError:
        return False
    return True


def scratch(settings: Settings) -> Path:
    """Where trials of this tag work: outside the checkout, where git would never look."""
    place = hashlib.sha256(f"{settings.results.resolve()}\0{settings.tag}".encode()).hexdigest()[:16]
    return settings.cache / "scratch" / place


def report(settings: Settings) -> None:
    """The leaderboard, and where to look next."""
    from harness.leaderboard import show

    show(settings.root, settings.tag)
    print(f"Look closer: python -m harness.show N; git log HEAD..autoresearch/{settings.tag}")
