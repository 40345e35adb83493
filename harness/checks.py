"""What `harness.doctor` looks at: each check yields its findings, and a finding that is bad says what mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from harness import machine, proof
from harness.errors import GitError, HarnessError
from harness.text import one_line

if TYPE_CHECKING:
    from harness.ruler import Scale

INSTALL = "In the folder of the harness: pip install -e ."
PAID = {"ANTHROPIC_API_KEY": "anthropic:MODEL", "OPENAI_API_KEY": "openai:MODEL"}
"""Variables that hold keys, and the researchers that would use them. Their values are never shown."""
OPTIONAL = {"anthropic", "openai", "nvidia-ml-py"}
"""Packages that a search on a CPU does without."""
GIT = (2, 36)
"""Since this version git can be told to have commits on disk before the ledger names them."""
DISK_MB, TIGHT_DISK_MB = 500, 5_000
WORKER_MB = 1_500
"""Memory of a trial on a CPU: the trainer, the model server, and torch in each."""
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class State(StrEnum):
    """What a check came to. Only a problem keeps the main job from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Row:
    """One finding."""

    state: State
    check: str
    found: str
    mend: str = ""


ok, warning, problem = (partial(Row, state) for state in State)


@dataclass(frozen=True)
class Place:
    """Where to look."""

    folder: Path
    environ: Mapping[str, str]

    @cached_property
    def root(self) -> Path:
        """Top of the checkout, or the folder itself where there is none."""
        from harness.git import Repository

        try:
            return Repository.open(self.folder).root
        except GitError:
            return self.folder

    @cached_property
    def device(self) -> machine.Device:
        return machine.pick_device(None, visible=self.environ.get("CUDA_VISIBLE_DEVICES"))

    @property
    def scale(self) -> str:
        """The one a run takes by itself."""
        return "gpu" if self.device.kind == "cuda" else "cpu"

    @property
    def cache(self) -> Path:
        from harness.start import corpora_cache

        return corpora_cache(self.environ)


Check = Callable[[Place], Iterator[Row]]


def _system(place: Place) -> Iterator[Row]:
    machine.require_linux()
    yield ok("system", f"{platform.system()} {platform.release()}, {platform.machine()}")


def _python(place: Place) -> Iterator[Row]:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= (3, 11):  # noqa: UP036 - whoever runs this may have another one
        yield ok("python", found)
    else:
        yield problem("python", found, "Use Python 3.11 or newer.")


def _packages(place: Place) -> Iterator[Row]:
    from packaging.requirements import Requirement

    good = 0
    for requirement in map(Requirement, _required()):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            judge = warning if requirement.name in OPTIONAL else problem
            yield judge("packages", f"{requirement.name} is missing", INSTALL)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            good += 1
        else:
            why = "; scores compare only under one version" if requirement.name == "torch" else ""
            yield warning("packages", f"{requirement.name} {version}, asked for {requirement}{why}", INSTALL)
    yield ok("packages", f"{good} as asked for")


def _required() -> list[str]:
    """What the harness depends on, from its own checkout, or as it was installed."""
    own = Path(__file__).parents[1] / "pyproject.toml"
    if own.is_file():
        project = tomllib.loads(own.read_text(encoding="utf-8"))["project"]
        return [str(line) for line in project["dependencies"]]
    return [line for line in metadata.requires("autoresearch-harness") or [] if "extra ==" not in line]


def _torch(place: Place) -> Iterator[Row]:
    build = machine.torch_build()
    if build is None:
        yield problem("torch", "not installed", INSTALL)
        return
    yield ok("torch", f"{build.version}, {f'CUDA {build.cuda}' if build.cuda else 'without CUDA'}")


def _device(place: Place) -> Iterator[Row]:
    found = place.device
    what = f"{found.count} of" if found.kind == "cuda" else "CPU,"
    yield ok("device", f"{what} {found.name}; scale {place.scale} by default")
    gpus = machine.installed_gpus()
    if gpus and found.kind == "cpu":
        try:
            machine.pick_device("cuda", visible=place.environ.get("CUDA_VISIBLE_DEVICES"), gpus=gpus)
        except HarnessError as error:
            yield warning("device", error.problem, error.mend)
    others = sorted({gpu.name for gpu in gpus} - {found.name})
    if found.kind == "cuda" and others:
        mend = "To use another model instead, name it in CUDA_VISIBLE_DEVICES."
        yield warning("device", f"left out, since scores would not compare: {', '.join(others)}", mend)


def _memory(place: Place) -> Iterator[Row]:
    slots, total = machine.slots(None, place.device), machine.memory_mb()
    found = f"{total:,} MB for {len(slots)} trials at a time on {len(machine.cores())} cores"
    if total >= WORKER_MB * len(slots):
        yield ok("memory", found)
    else:
        fit = max(1, total // WORKER_MB)
        yield warning("memory", found, f"Use --workers {fit}: a trial takes some {WORKER_MB:,} MB.")


def _disk(place: Place) -> Iterator[Row]:
    for path in (place.root / "results", place.cache):
        free, folder = machine.disk_free_mb(path), machine.existing(path)
        found = f"{free:,} MB free at {path}"
        if not os.access(folder, os.W_OK | os.X_OK):
            yield problem("disk", f"{folder} cannot be written to", "Give yourself write permission on it.")
        elif free < DISK_MB:
            yield problem("disk", found, f"Make room: at least {DISK_MB} MB are needed.")
        elif free < TIGHT_DISK_MB:
            yield warning("disk", found, "A night leaves checkpoints and logs: make room before a long one.")
        else:
            yield ok("disk", found)


def _git(place: Place) -> Iterator[Row]:
    from harness.git import Repository
    from harness.git.plumbing import Plumbing

    if not shutil.which("git", path=place.environ.get("PATH")):
        yield problem("git", "git was not found", "Install git, and look whether it is on PATH.")
        return
    plumbing = Plumbing.at(place.folder)
    version = plumbing.must("version").text
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < GIT:
        wanted = ".".join(map(str, GIT))
        yield warning("git", version, f"Install git {wanted} or newer, so that a power cut loses no commit.")
    else:
        yield ok("git", version)
    root = Repository.open(place.folder).root
    yield ok("checkout", f"{root}; your identity and signing are not used")
    plumbing = Plumbing.at(root)
    branch = plumbing.ask("symbolic-ref", "--short", "-q", "HEAD").text or "no branch (detached)"
    if branch.startswith("autoresearch/"):
        mend = "The harness moves this branch under you: git switch main."
        yield warning("branch", f"you stand on {branch}", mend)
    else:
        changed = plumbing.ask("status", "--porcelain", "--", "train.py").text
        start = "; train.py has changes, which a new series starts from" if changed else ""
        yield ok("branch", f"{branch}{start}")


def _train(place: Place) -> Iterator[Row]:
    from harness.hyperparameters import check, read
    from harness.start import read_text

    source = read_text(place.root / "train.py")
    check(source, place.scale)
    found = read(source, place.scale)
    searched = sum(each.range is not None for each in found)
    text = f"keeps its contract; {len(found)} hyperparameters, {searched} with a range at scale {place.scale}"
    if searched:
        yield ok("train.py", text)
    else:
        mend = "Give some a range in brackets, as in [0.005..0.2 log]; without one, search has nothing to do."
        yield warning("train.py", text, mend)


def _prepare(place: Place) -> Iterator[Row]:
    scale = _ruler(place)
    sizes = f"context {scale.context}, vocabulary {scale.vocab}, budget {scale.budget} a trial"
    yield ok("prepare.py", f"scale {place.scale}: {sizes}")


def _ruler(place: Place) -> Scale:
    from harness.ruler import Ruler
    from harness.start import read_text

    return Ruler.read(read_text(place.root / "prepare.py")).scale(place.scale)


def _corpus(place: Place) -> Iterator[Row]:
    from harness import corpora

    spec = "climbmix" if place.device.kind == "cuda" else "python"
    found = corpora.find(spec, _ruler(place).vocab, place.cache)
    if found:
        yield ok("corpus", str(found))
        return
    missing, mend = f"{spec} is not prepared in {place.cache}", f"To do it now: python prepare.py --corpus {spec}"
    if spec == "climbmix":
        missing += "; a run fetches it, or takes python where it cannot be reached"
        mend += "; both take --mirror URL, another address to fetch it from."
    else:
        mend = f"The first run prepares it. {mend}"
    yield warning("corpus", missing, mend)


def _ledger(place: Place) -> Iterator[Row]:
    from harness.ledger import Ledger
    from harness.reading import ledger_path

    path = ledger_path(place.root)
    if not path.exists():
        yield ok("ledger", "none yet; the first run makes it")
        return
    with Ledger.open(path, readonly=True) as found:
        tags = found.tags()
        count = sum(len(found.experiments(tag)) for tag in tags)
    yield ok("ledger", f"{count} experiments in {len(tags)} series")


def _keys(place: Place) -> Iterator[Row]:
    for name, researcher in PAID.items():
        if place.environ.get(name):
            yield ok("keys", f"{name}: set, not used unless you name a paid researcher ({researcher})")
        else:
            yield ok("keys", f"{name}: not set; only {researcher} needs it")


def _sandbox(place: Place) -> Iterator[Row]:
    from harness.sandbox.bubblewrap import INSTALL
    from harness.start import shelter

    sandbox = shelter(place.device, 1, place.environ, unsandboxed=True)
    if sandbox.level > 1:
        yield ok("sandbox", str(sandbox)) if sandbox.level == 3 else warning("sandbox", str(sandbox), INSTALL)
        return
    mend = f"{INSTALL} Without it a run asks for --allow-unsandboxed; docs/trust.md says what that means."
    yield problem("sandbox", str(sandbox), mend)


def deep(place: Place) -> Iterator[Row]:
    """Have torch compute on the device, and on a GPU compile too."""
    kind = place.device.kind
    tried = proof.computes(kind, place.environ)
    if not tried.worked:
        mend = "Install torch anew, as pyproject.toml pins it." if kind == "cpu" else "Look at nvidia-smi."
        yield problem("compute", f"torch cannot compute on {kind}: {tried.said}", mend)
        return
    yield ok("compute", tried.said)
    if kind == "cuda":
        yield compilation(kind, place.environ)


def compilation(kind: str, environ: Mapping[str, str]) -> Row:
    """Without it train.py goes on without compiling, and learns less in the same time."""
    tried = proof.compiles(kind, environ)
    if tried.worked:
        return ok("compile", tried.said)
    found = f"torch.compile does not work on {kind}, so trials there are slower and score worse: {tried.said}"
    mend = "Give it a C compiler and Python's headers; on Debian: apt install build-essential python3-dev"
    return warning("compile", found, mend)


CHECKS: dict[str, Check] = {
    "system": _system,
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "device": _device,
    "memory": _memory,
    "disk": _disk,
    "git": _git,
    "train.py": _train,
    "prepare.py": _prepare,
    "corpus": _corpus,
    "ledger": _ledger,
    "keys": _keys,
    "sandbox": _sandbox,
}


def examine(place: Place, checks: Mapping[str, Check]) -> Iterator[Row]:
    """All rows, in order. A check that raises becomes a row of its own, and the others go on."""
    for name, check in checks.items():
        try:
            for row in check(place):
                yield _told(row, place.environ)
        except HarnessError as error:
            yield _told(problem(name, error.problem, error.mend), place.environ)
        except ImportError as error:
            yield _told(problem(name, str(error), INSTALL), place.environ)
        except Exception as error:  # a doctor that falls ill helps nobody
            yield _told(problem(name, f"{type(error).__name__}: {error}", "This check broke."), place.environ)


def _told(row: Row, environ: Mapping[str, str]) -> Row:
    """The row, fit for a terminal, with no secret of the environment in it whatever a check was told."""
    found, mend = row.found, row.mend
    for name, value in environ.items():
        if SECRET.search(name) and len(value) >= 6:
            found, mend = found.replace(value, f"[{name}]"), mend.replace(value, f"[{name}]")
    return Row(row.state, row.check, one_line(found, 600), one_line(mend, 400))
