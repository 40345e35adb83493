"""What a run will do, from what was asked for and what was there before."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import git

from harness import night as nights
from harness import start
from harness.errors import ContractError, UsageError
from harness.git import Repository
from harness.ledger import Ledger
from harness.start import Asked, Plan
from harness.types import Arena

NOON = 1_795_176_000.0  # some day's
ARENA = Arena("text-1", "cpu", "steps:6", 1, "r", "a cpu", "2.13", 1)


class Place:
    """A checkout with a ledger, in which plans are made."""

    def __init__(self, root: Path) -> None:
        self.root, self.repository = root, Repository.open(root)
        self.ledger = Ledger.open(root / "results/ledger.db")

    def plan(self, **asked: object) -> Plan:
        wanted = Asked(**{"corpus": "python", "device": "cpu", **asked})  # type: ignore[arg-type]
        return start.plan(wanted, self.repository, self.ledger, {}, NOON)

    def begin(self, **asked: object) -> Plan:
        made = self.plan(**asked)
        start.begin(made, ARENA, self.ledger, self.repository)
        return made

    def edit(self) -> None:
        path = self.root / "train.py"
        path.write_text(path.read_text().replace("WIDTH = 16", "WIDTH = 32"))


@pytest.fixture
def place(checkout: Path) -> Iterator[Place]:
    made = Place(checkout)
    yield made
    made.ledger.close()


def test_a_tag_is_month_and_day_whatever_the_locale() -> None:
    assert start.today(NOON)[:3] in start.MONTHS
    assert start.today(NOON)[3:].isdigit()


def test_the_last_unfinished_series_is_gone_on_with(place: Place) -> None:
    place.begin(tag="before")
    assert place.plan().settings.tag == "before"


def test_after_a_finished_series_today_begins(place: Place) -> None:
    place.begin(tag="before")
    place.ledger.finish("before")
    assert place.plan().settings.tag == start.today(NOON)


def test_a_series_of_today_goes_on_as_long_as_train_py_is_the_one_it_had(place: Place) -> None:
    place.begin()
    place.ledger.finish(start.today(NOON))
    assert place.plan().settings.tag == start.today(NOON)
    place.edit()
    assert place.plan().settings.tag == start.today(NOON) + "b"


def test_from_an_edited_train_py_a_new_series_begins_though_one_is_unfinished(place: Place) -> None:
    place.begin(tag="before")
    place.edit()
    made = place.plan()
    assert made.settings.tag == start.today(NOON)
    assert "--tag before" in made.why["tag"]


def test_an_edit_of_comments_alone_begins_nothing_new(place: Place) -> None:
    place.begin(tag="before")
    path = place.root / "train.py"
    path.write_text(path.read_text() + "\n# a note\n")
    assert place.plan().settings.tag == "before"


def test_what_is_left_open_is_as_the_series_was_begun(place: Place) -> None:
    place.begin(tag="before", budget="steps:3", seed=7)
    settings = place.plan().settings
    assert (settings.budget, settings.seed) == ("steps:3", 7)


def test_the_ruler_of_a_series_is_the_one_it_began_with(place: Place) -> None:
    before = place.begin(tag="before").ruler
    (place.root / "prepare.py").write_text("SCALES = {}\n")
    assert place.plan().ruler == before


def test_the_baseline_is_train_py_as_it_stands_and_not_as_it_was_committed(place: Place) -> None:
    place.edit()
    place.begin(tag="dirty")
    assert "WIDTH = 32" in place.ledger.source("dirty", 0)
    assert "WIDTH = 16" in git(place.root, "show", "HEAD:train.py")


def test_cpu_seconds_are_wall_time_on_a_gpu() -> None:
    assert start._budget("cpu:30", "cuda") == "wall:30"
    assert start._budget("cpu:30", "cpu") == "cpu:30"
    assert start._budget("steps:5", "cuda") == "steps:5"


def test_a_path_of_a_corpus_is_kept_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    assert place.plan(corpus="texts").settings.corpus == str(place.root / "texts")


def test_a_train_py_without_its_contract_is_refused(place: Place) -> None:
    (place.root / "train.py").write_text("print('hello')\n")
    with pytest.raises(ContractError, match="build_model"):
        place.plan()


@pytest.mark.parametrize("asked", [{"hours": 0.0}, {"hours": float("nan")}, {"seed": -1}, {"experiments": -1}])
def test_a_limit_that_cannot_be_is_refused(place: Place, asked: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        place.plan(**asked)


def test_a_plan_says_what_was_chosen_and_why(place: Place) -> None:
    words = dict(start.in_words(place.plan(experiments=1)))
    assert words["until"] == "1 more experiment"
    assert words["scale"].startswith("cpu; ")
    assert re.match(r"level [123]: ", words["sandbox"])


def test_nothing_is_begun_by_planning(place: Place) -> None:
    place.plan(tag="planned")
    assert place.ledger.series("planned") is None
    assert place.repository.branch("planned") is None


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hang_up_ends_the_night_unless_it_is_ignored(ignored: bool) -> None:
    async def night() -> None:
        signal.raise_signal(signal.SIGHUP)
        for _ in range(20):
            await asyncio.sleep(0.005)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        loop = SimpleNamespace(night=night, view=SimpleNamespace(say=lambda text: None))
        finished = asyncio.run(nights.until_stopped(loop))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert finished is ignored
