"""From what a person asked for to what a run will do: every choice made once, and said in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import corpora, machine
from harness.errors import GitError, LedgerError, UsageError
from harness.git import Repository
from harness.hyperparameters import check, fingerprint
from harness.ledger import Ledger, Series
from harness.ruler import Ruler, Scale, parse_budget
from harness.sandbox import levels
from harness.sandbox.walls import Sandbox
from harness.scoring.session import SCORER
from harness.settings import Settings
from harness.types import Arena

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
INHERITED = ("scale", "corpus", "budget", "seed", "device", "researcher")
"""What a series goes on with unless it is asked for anew."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, as it was typed; None is what was left open."""

    tag: str | None = None
    researcher: str | None = None
    experiments: int | None = None
    hours: float | None = None
    budget: str | None = None
    scale: str | None = None
    corpus: str | None = None
    seed: int | None = None
    workers: int | None = None
    device: str | None = None
    mirror: str | None = None
    allow_unsandboxed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do."""

    settings: Settings
    device: machine.Device
    slots: tuple[machine.Slot, ...]
    ruler: str
    """Text of `prepare.py` that holds for the whole series."""
    series: Series | None
    """The series that is gone on with."""
    sandbox: Sandbox
    why: Mapping[str, str]
    """Reason of each choice that was not asked for, by name of the setting."""
    mirror: str | None = None

    @property
    def scale(self) -> Scale:
        """The column of the ruler that holds."""
        return Ruler.read(self.ruler).scale(self.settings.scale)


def today(now: float) -> str:
    """Month and day, as in `nov20`, in local time and in English whatever the locale."""
    date = time.localtime(now)
    return f"{MONTHS[date.tm_mon - 1]}{date.tm_mday:02d}"


def plan(asked: Asked, repository: Repository, ledger: Ledger, environ: Mapping[str, str], now: float) -> Plan:
    """Resolve every choice. Raises `HarnessError` where something asked for cannot be."""
    _check(asked)
    why: dict[str, str] = {}
    tag = _tag(asked, repository, ledger, now, why)
    repository.check_tag(tag)
    series = ledger.series(tag)
    if series is not None:
        asked = _inherit(asked, series, why)
    device = machine.pick_device(asked.device, visible=environ.get("CUDA_VISIBLE_DEVICES"))
    if asked.device is None:
        why["device"] = "a GPU that torch can use" if device.kind == "cuda" else "no GPU that torch can use"
    ruler = _ruler(repository, series)
    scale_name = asked.scale or ("gpu" if device.kind == "cuda" else "cpu")
    if asked.scale is None:
        why["scale"] = "follows the device"
    scale = Ruler.read(ruler).scale(scale_name)
    if series is None:  # now, since a corpus may take long to prepare
        check(read_text(repository.root / "train.py"), scale_name)
    slots = tuple(machine.slots(asked.workers, device))
    cache = corpora_cache(environ)
    settings = Settings(
        root=repository.root,
        tag=tag,
        researcher=asked.researcher or "search",
        experiments=asked.experiments,
        hours=asked.hours,
        budget=_budget(asked.budget or scale.budget, device.kind),
        scale=scale_name,
        corpus=_corpus(asked, device.kind, scale.vocab, cache, why),
        seed=1 if asked.seed is None else asked.seed,
        workers=len(slots),
        device=device.kind,
        cache=cache,
    )
    sandbox = shelter(device, len(slots), environ, unsandboxed=asked.allow_unsandboxed)
    texts = [Path(settings.corpus)] if settings.corpus not in corpora.NAMED else []
    sandbox.view.protect([repository.root, settings.results, cache], texts)
    return Plan(settings, device, slots, ruler, series, sandbox, why, asked.mirror)


def shelter(device: machine.Device, slots: int, environ: Mapping[str, str], *, unsandboxed: bool = False) -> Sandbox:
    """What stands around every trial here. Raises `SandboxError` if nothing holds and nobody allowed that."""
    limits = levels.bounds(device.kind, machine.memory_mb(), slots)
    nodes = device.gpus[0].nodes if device.gpus else ()
    return levels.choose(environ, limits, unsandboxed=unsandboxed, devices=nodes)


def corpora_cache(environ: Mapping[str, str]) -> Path:
    """Where prepared corpora lie."""
    return Path(environ.get("AUTORESEARCH_CACHE") or "~/.cache/autoresearch").expanduser().absolute()


def arena(plan: Plan, corpus: corpora.Corpus) -> Arena:
    """All that makes the scores of this run comparable with others."""
    build = machine.torch_build()
    return Arena(
        corpus=corpus.identity,
        scale=plan.settings.scale,
        budget=plan.settings.budget,
        scorer=SCORER,
        ruler=Ruler.read(plan.ruler).hash,
        device=plan.device.name,
        torch=build.version if build else "none",
        threads=1 if plan.device.kind == "cpu" else 0,
    )


def begin(plan: Plan, arena: Arena, ledger: Ledger, repository: Repository) -> None:
    """Give the series its rows and its branch; where it has them, see that its scores would compare."""
    settings, tag = plan.settings, plan.settings.tag
    series = ledger.series(tag)
    if series is None:
        source = read_text(settings.root / "train.py")
        commit = repository.baseline(tag, source, plan.ruler)
        kept = {name: getattr(settings, name) for name in INHERITED}
        series = ledger.start_series(tag, arena, kept, commit)
    elif different := arena.differences(series.arena):
        listed = "; ".join(f"{line} before" for line in different)
        raise LedgerError(
            f"Tag {tag} was begun in another arena, so new scores would not compare ({listed})",
            "Begin another series with --tag, or go back to what it was begun with.",
        )
    elif (seed := series.settings["seed"]) != settings.seed:
        raise LedgerError(
            f"Tag {tag} was begun with --seed {seed}: trials with another would not pair with those it has",
            "Leave --seed out, or begin another series with --tag.",
        )
    else:
        ledger.reopen(tag)
        if _is_outdated(tag, repository, ledger):
            print(f"  note       train.py has changed since {tag} began, and is not used; --tag NEW starts from it")
    if not ledger.experiments(tag):
        ledger.open_experiment(tag, arena.key, None, "Baseline", "train.py as it stands.", "baseline", "person")
    if not ledger.experiment(tag, 0).attempts:
        source = repository.source(series.base_commit)
        ledger.add_attempt(tag, 0, series.base_commit, source, fingerprint(source))


def read_text(path: Path) -> str:
    """A file of the checkout. Raises `GitError` that says how to get it back."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GitError(f"{path} cannot be read: {error}", f"Restore it: git checkout {path.name}") from error


def _check(asked: Asked) -> None:
    if asked.experiments is not None and asked.experiments < 0:
        raise UsageError(f"--experiments {asked.experiments} is below 0", "Leave it out to go on until stopped.")
    if asked.hours is not None and not asked.hours > 0:
        raise UsageError(f"--hours {asked.hours} is not above 0", "Leave it out to go on until stopped.")
    if asked.seed is not None and not 0 <= asked.seed < 1 << 31:
        raise UsageError(f"--seed {asked.seed} is out of range", "Choose one from 0 to 2147483647.")
    if asked.budget is not None:
        parse_budget(asked.budget)


def _tag(asked: Asked, repository: Repository, ledger: Ledger, now: float, why: dict[str, str]) -> str:
    """The one asked for, the last unfinished one, or today's: gone on with as long as train.py is the one it had."""
    if asked.tag is not None:
        return asked.tag
    unfinished = ledger.last_unfinished()
    if unfinished is not None and not _is_outdated(unfinished, repository, ledger):
        why["tag"] = "the last one that is unfinished"
        return unfinished
    names = [today(now), *(today(now) + letter for letter in "bcdefghijklmnopqrstuvwxyz")]
    tag = next((name for name in names if not _is_outdated(name, repository, ledger)), names[-1])
    if ledger.series(tag) is not None:
        why["tag"] = "today's, which goes on"
    elif unfinished is not None:
        why["tag"] = f"train.py has changed since {unfinished} began; --tag {unfinished} goes on with that one"
    else:
        why["tag"] = "today" if tag == names[0] else "today; train.py is not the one that the earlier ones began from"
    return tag


def _is_outdated(tag: str, repository: Repository, ledger: Ledger) -> bool:
    """Whether a series began from another train.py than the one that lies there."""
    series = ledger.series(tag)
    if series is None:
        return False
    return fingerprint(repository.source(series.base_commit)) != fingerprint(read_text(repository.root / "train.py"))


def _inherit(asked: Asked, series: Series, why: dict[str, str]) -> Asked:
    """Fill what was left open with what the series was begun with."""
    left = [name for name in INHERITED if getattr(asked, name) is None and name in series.settings]
    why |= dict.fromkeys(left, f"as {series.tag} was begun")
    found: dict[str, Any] = {name: series.settings[name] for name in left}
    return replace(asked, **found)


def _ruler(repository: Repository, series: Series | None) -> str:
    if series is not None:
        return repository.source(series.base_commit, "prepare.py")
    return read_text(repository.root / "prepare.py")


def _budget(text: str, device: str) -> str:
    """In its plain form. CPU seconds say nothing of a GPU's work: there the same amount is wall time."""
    budget = parse_budget(text)
    return str(replace(budget, kind="wall") if budget.kind == "cpu" and device == "cuda" else budget)


def _corpus(asked: Asked, device: str, vocab: int, cache: Path, why: dict[str, str]) -> str:
    if asked.corpus is not None:
        # A path is kept whole: the series may go on from another folder.
        return asked.corpus if asked.corpus in corpora.NAMED else str(Path(asked.corpus).expanduser().resolve())
    if device == "cpu":
        why["corpus"] = "sources of Python: real text that is on this machine"
        return "python"
    from harness.corpora.climbmix import reachable

    if corpora.find("climbmix", vocab, cache) or reachable(asked.mirror):
        why["corpus"] = "the default on a GPU"
        return "climbmix"
    why["corpus"] = "climbmix cannot be reached from here; --mirror names another place to fetch it from"
    return "python"


def until(settings: Settings) -> str:
    """When the run ends, in words."""
    count = settings.experiments
    limits = [] if count is None else [f"{count} more experiment" + ("" if count == 1 else "s")]
    limits += [f"{settings.hours:g} hours have passed"] if settings.hours is not None else []
    return " or ".join(limits) or "stopped with Ctrl-C"


def in_words(plan: Plan) -> list[tuple[str, str]]:
    """The first lines of a run: each choice, and why it was made."""
    asked, device = plan.settings, plan.device
    where = (
        f"{len(plan.slots)} x {device.name}"
        if device.kind == "cuda"
        else f"{device.name}, {len(plan.slots)} of {device.count} cores"
    )
    facts = asdict(asked)
    lines = [
        ("tag", f"{asked.tag} (branch autoresearch/{asked.tag})"),
        ("device", where),
        *((name, str(facts[name])) for name in ("scale", "corpus", "researcher")),
        ("budget", f"{asked.budget} a trial, {asked.workers} at a time"),
        ("sandbox", str(plan.sandbox)),
        ("until", until(asked)),
    ]
    return [(name, f"{text}; {plan.why[name]}" if name in plan.why else text) for name, text in lines]
