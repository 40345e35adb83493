"""The embedded researcher: what it proposes, from what, and that it finds what random search does not."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from contracts.researcher import PROMISES, MemoryHistory, Promise

from harness import hyperparameters, researchers
from harness.errors import NoProposal, UsageError
from harness.hyperparameters import Hyperparameter, Range, Value
from harness.researchers.search import Search, tpe, words
from harness.researchers.search.evidence import Change, Point, Reader, changes
from harness.researchers.search.model import Model
from harness.researchers.search.space import Space
from harness.settings import Settings
from harness.types import Outcome, Proposal, Verdict

BODY = """

def build_model(config):
    return None


def main():
    pass


if __name__ == "__main__":
    main()
"""
SOURCE = (
    """from prepare import pick

# layers of the model [gpu 4..24 int, cpu 1..8 int]
DEPTH = pick(gpu=8, cpu=3)
WINDOW = "L"  # attention window of each layer [SL | SSL | L]
BATCH = 4096  # tokens of one step [1024 | 2048 | 4096 | 8192]
# learning rate of the matrices [0.005..0.2 log]
MATRIX_LR = 0.02
HEAD_LR = 0.004  # learning rate of the head [0.0005..0.05 log]
DECAY = 0.1  # weight decay [0.0..0.5]
COOLDOWN = 0.5  # share of the budget, over which rates fall [0.1..1.0]
TIED = False  # embedding and head share weights [True | False]
FIXED = 7  # not searched
"""
    + BODY
)
SMALL = "A = 'x'  # which [x | y | z]\nB = False  # whether [True | False]\n" + BODY
NAMES = ["DEPTH", "WINDOW", "BATCH", "MATRIX_LR", "HEAD_LR", "DECAY", "COOLDOWN", "TIED"]
BASE = {0: 1.75, 1: 1.76, 2: 1.74}


def edited(**values: Value) -> str:
    return hyperparameters.edit(SOURCE, "cpu", values)


def values_of(source: str) -> dict[str, Value]:
    return {item.name: item.value for item in hyperparameters.read(source, "cpu")}


def propose(history: MemoryHistory, seed: int = 1) -> Proposal:
    return asyncio.run(Search("cpu", seed).propose(history))


def busy_past() -> MemoryHistory:
    """A past with a bit of all: gains, losses, failures, one that still runs."""
    history = MemoryHistory(SOURCE, BASE)
    history.add(edited(DEPTH=4), scores={0: 1.771}, verdict=Verdict.DISCARD)
    history.add(edited(MATRIX_LR=0.04), scores={0: 1.73, 1: 1.738}, verdict=Verdict.KEEP)
    history.add(edited(MATRIX_LR=0.04, DECAY=0.2), scores={0: 1.731}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.04, BATCH=8192), outcome=Outcome.OOM, verdict=Verdict.FAILED, parent=2)
    history.add(edited(MATRIX_LR=0.04, DEPTH=2), scores={0: 1.74}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.04, WINDOW="SL"), scores={0: 1.75}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.04, HEAD_LR=0.01), scores={0: 1.742}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.04, TIED=True), scores={0: 1.78}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.06), scores={0: 1.729}, verdict=Verdict.DISCARD, parent=2)
    history.add(edited(MATRIX_LR=0.04, COOLDOWN=0.7), parent=2)
    return history


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("past", ["new", "busy"])
def test_search_keeps_the_promises_of_a_researcher(promise: Promise, past: str) -> None:
    history = MemoryHistory(SOURCE, BASE) if past == "new" else busy_past()
    asyncio.run(promise(Search("cpu", 1), history))


@pytest.mark.parametrize("seed", range(5))
def test_a_proposal_changes_one_to_four_hyperparameters_and_no_other_byte(seed: int) -> None:
    history = busy_past()
    before = history.source(history.incumbent().id)
    proposal = propose(history, seed)
    old, new = values_of(before), values_of(proposal.source)
    changed = {name: new[name] for name in new if new[name] != old[name]}
    assert 1 <= len(changed) <= 4
    assert proposal.source == hyperparameters.edit(before, "cpu", changed)


def test_the_same_seed_and_past_give_the_same_proposal() -> None:
    assert propose(busy_past()) == propose(busy_past())


def test_another_seed_gives_another_proposal() -> None:
    history = MemoryHistory(SOURCE, BASE)
    assert len({propose(history, seed).source for seed in range(4)}) > 1


def test_asked_again_before_the_first_is_recorded_it_proposes_something_else() -> None:
    search, history = Search("cpu", 1), busy_past()

    async def ask() -> list[Proposal]:
        return [await search.propose(history) for _ in range(4)]

    assert len({proposal.source for proposal in asyncio.run(ask())}) == 4


def test_what_runs_already_turns_the_next_proposal_elsewhere() -> None:
    history = busy_past()
    first = propose(history)
    history.add(first.source, parent=first.parent)
    assert propose(history).source != first.source


def test_without_a_range_there_is_no_proposal_and_a_mend() -> None:
    history = MemoryHistory("LR = 0.1  # rate\n" + BODY, BASE)
    with pytest.raises(NoProposal, match="range") as caught:
        propose(history)
    assert "[0.005..0.2 log]" in caught.value.mend


def test_a_range_of_the_other_scale_alone_gives_no_proposal() -> None:
    history = MemoryHistory("D = 4  # layers [gpu 4..8 int]\n" + BODY, BASE)
    with pytest.raises(NoProposal, match="scale cpu"):
        propose(history)


def test_a_small_space_is_used_up_to_the_last_setting_and_then_there_is_no_proposal() -> None:
    search, history = Search("cpu", 1), MemoryHistory(SMALL, BASE)

    async def use_up() -> None:
        for _ in range(5):
            proposal = await search.propose(history)
            assert history.tried(proposal.source) is None
            history.add(proposal.source, scores={0: 1.8}, verdict=Verdict.DISCARD)
        with pytest.raises(NoProposal, match="tried"):
            await search.propose(history)

    asyncio.run(use_up())


@pytest.mark.parametrize("seed", range(8))
def test_the_first_proposals_are_small_steps(seed: int) -> None:
    changed = hyperparameters.read(propose(MemoryHistory(SOURCE, BASE), seed).source, "cpu")
    space = Space.of(hyperparameters.read(SOURCE, "cpu"))
    moves = space.encode({item.name: item.value for item in changed}) - space.encode({})
    assert 1 <= np.count_nonzero(moves) <= 2
    assert np.abs(moves)[~space.nominal].max() <= 0.5


def test_an_early_proposal_claims_no_gain() -> None:
    assert propose(MemoryHistory(SOURCE, BASE)).expected_gain is None


def test_a_later_proposal_says_what_it_expects() -> None:
    proposal = propose(busy_past())
    assert proposal.expected_gain is not None
    assert "scored experiments" in proposal.hypothesis


def point(number: int, scores: dict[int, float] | None = None, code: str = "a", **values: Value) -> Point:
    return Point(number, 0, {**values_of(SOURCE), **values}, code, scores or {}, failed=scores is None)


def gain_of(points: list[Point], **values: Value) -> float:
    """What the model expects of a setting against the first point."""
    space = Space.of(hyperparameters.read(SOURCE, "cpu"))
    forecast = Model(space, points, points[0]).forecast(space.encode({**values_of(SOURCE), **values})[None])
    return float(forecast.gain[0])


def test_a_gain_of_many_seeds_counts_for_more_than_a_lucky_one() -> None:
    lucky = gain_of([point(0, BASE), point(1, {0: 1.72}, DECAY=0.3)], DECAY=0.3)
    sure = gain_of([point(0, BASE), point(1, dict.fromkeys(range(6), 1.72), DECAY=0.3)], DECAY=0.3)
    assert 0 < lucky < sure


def test_a_gain_is_shrunken_towards_nothing() -> None:
    assert 0 < gain_of([point(0, BASE), point(1, {0: 1.72}, DECAY=0.3)], DECAY=0.3) < 0.03


def test_what_an_edit_of_the_code_gave_is_not_put_down_to_a_hyperparameter() -> None:
    same = gain_of([point(0, BASE), point(1, {0: 1.60}, DECAY=0.3)], DECAY=0.3)
    other = gain_of([point(0, BASE), point(1, {0: 1.60}, code="b", DECAY=0.3)], DECAY=0.3)
    assert other < same / 4


def test_within_another_code_changes_still_teach() -> None:
    points = [point(0, BASE), point(1, {0: 1.60}, code="b"), point(2, {0: 1.64}, code="b", DECAY=0.3)]
    assert gain_of(points, DECAY=0.3) < -0.005


def test_a_failure_lowers_the_chance_near_it_and_no_mean() -> None:
    space = Space.of(hyperparameters.read(SOURCE, "cpu"))
    fine = [point(0, BASE), point(1, {0: 1.74}, DECAY=0.3)]
    broken = [*fine, point(2, None, DEPTH=8, BATCH=8192)]
    near = space.encode({**values_of(SOURCE), "DEPTH": 8, "BATCH": 8192})[None]
    calm, wary = Model(space, fine, fine[0]).forecast(near), Model(space, broken, broken[0]).forecast(near)
    assert calm.feasible[0] == 1
    assert wary.feasible[0] < 0.5
    assert wary.gain[0] == pytest.approx(calm.gain[0])


def test_a_diverged_run_does_not_drown_the_others() -> None:
    points = [point(0, BASE), point(1, {0: 1.70, 1: 1.71, 2: 1.69}, DECAY=0.3), point(2, {0: 9.0}, MATRIX_LR=0.2)]
    assert gain_of(points, DECAY=0.3) > 0.01


def test_what_the_disk_or_a_power_cut_ended_says_nothing() -> None:
    history = MemoryHistory(SOURCE, BASE)
    for outcome in (Outcome.DISK, Outcome.LOST):
        history.add(edited(DEPTH=4), outcome=outcome, verdict=Verdict.FAILED)
    assert [point.id for point in Reader("cpu").points(history)] == [0]


def test_a_past_text_that_breaks_the_contract_is_passed_over() -> None:
    history = busy_past()
    history.add("def (", outcome=Outcome.CRASH, verdict=Verdict.FAILED)
    history.add(SOURCE.replace("[0.0..0.5]", "[0.5..0.0]"), scores={0: 1.7}, verdict=Verdict.DISCARD)
    assert len(Reader("cpu").points(history)) == 11
    assert propose(history).source


def test_a_text_is_read_once() -> None:
    class Counting(MemoryHistory):
        asked = 0

        def source(self, experiment: int) -> str:
            self.asked += 1
            return super().source(experiment)

    history, reader = Counting(SOURCE, BASE), Reader("cpu")
    for _ in range(3):
        reader.points(history)
    assert history.asked == 1


def test_tpe_moves_the_freed_hyperparameters_alone_and_stays_inside() -> None:
    space = Space.of(hyperparameters.read(SOURCE, "cpu"))
    start = {name: value for name, value in values_of(SOURCE).items() if name in NAMES}
    points = [point(n, {0: 1.7 + n / 100}, DEPTH=1 + n % 8, DECAY=n / 40) for n in range(12)]
    points += [point(12, None, DEPTH=8, BATCH=8192), Point(13, 0, values_of(SOURCE), "a")]
    [found] = tpe.suggestions(space, points, start, [["DEPTH", "WINDOW"]], seed=3)
    assert {name: found[name] for name in NAMES[2:]} == {name: start[name] for name in NAMES[2:]}
    assert space.fits(found)
    assert found == tpe.suggestions(space, points, start, [["DEPTH", "WINDOW"]], seed=3)[0]


def test_changes_are_paired_by_seed_and_never_cross_an_edit_of_the_code() -> None:
    points = [point(0, BASE), point(1, {1: 1.70}, DECAY=0.3), point(2, {0: 1.0}, code="b", DECAY=0.4)]
    [change] = changes(points)
    assert (change.id, change.new, change.old) == (1, {"DECAY": 0.3}, {"DECAY": 0.1})
    assert change.gain == pytest.approx(0.06)


WIDE = "".join(f"SPARE_{i} = 0.5  # best left alone [0.0..1.0]\n" for i in range(6)) + SOURCE


def truth(source: str) -> float:
    """A valley: two rates that play together, some that matter less, six that are right as they are."""
    at = dict(zip(LEARNT, Space.of(hyperparameters.read(source, "cpu")).encode({}), strict=True))
    valley = 0.6 * (at["MATRIX_LR"] - 0.8) ** 2 + 0.2 * (at["HEAD_LR"] - at["MATRIX_LR"]) ** 2
    minor = 0.2 * (at["DEPTH"] - 0.7) ** 2 + 0.03 * at["BATCH"] + 0.02 * abs(at["COOLDOWN"] - 0.8) + 0.03 * at["TIED"]
    spare = sum(0.4 * (at[name] - 0.5) ** 2 for name in LEARNT if name.startswith("SPARE"))
    return float(1.6 + valley + minor + spare)


LEARNT = [item.name for item in Space.of(hyperparameters.read(WIDE, "cpu")).items]


def night(search: Search | None, seed: int, experiments: int = 20) -> float:
    """The noiseless score that a night ends with, by search or, with None, at random over the same ranges."""
    noise, dice = random.Random(seed), np.random.default_rng(seed)
    history = MemoryHistory(WIDE, {i: truth(WIDE) + noise.gauss(0, 0.01) for i in range(3)})
    space = Space.of(hyperparameters.read(WIDE, "cpu"))

    async def run() -> float:
        for _ in range(experiments):
            best = history.incumbent()
            anywhere = hyperparameters.edit(WIDE, "cpu", space.decode(dice.random(len(space))))
            source = (await search.propose(history)).source if search else anywhere
            scores = {index: truth(source) + noise.gauss(0, 0.01) for index in range(2)}
            kept = (best.val_bpb or 9.0) - sum(scores.values()) / 2 > 0.01
            history.add(source, scores=scores, verdict=Verdict.KEEP if kept else Verdict.DISCARD, parent=best.id)
        return truth(history.source(history.incumbent().id))

    return asyncio.run(run())


def test_search_ends_a_night_lower_than_random_search() -> None:
    ours = [night(Search("cpu", seed), seed) for seed in range(3)]
    theirs = [night(None, seed) for seed in range(3)]
    assert np.median(ours) < np.median(theirs) - 0.02


def step(name: str, new: Value) -> words.Step:
    return words.Step(next(item for item in hyperparameters.read(SOURCE, "cpu") if item.name == name), new)


def test_a_title_reads_like_a_persons() -> None:
    assert words.title([step("MATRIX_LR", 0.055), step("COOLDOWN", 0.65)]) == (
        "Matrix LR 0.02 -> 0.055, cool-down 0.5 -> 0.65"
    )


def test_a_title_stays_below_80_characters_whatever_the_names() -> None:
    long = Hyperparameter("A_NAME_" * 20 + "END", 0.1, "", Range(0.0, 1.0), 1)
    many = [
        step(name, value) for name, value in {"DEPTH": 5, "BATCH": 8192, "MATRIX_LR": 0.055, "HEAD_LR": 0.01}.items()
    ]
    for steps in ([words.Step(long, 0.2)], [*many[:3], words.Step(long, 0.2)], many):
        assert len(words.title(steps)) < 80


def test_a_hypothesis_tells_what_the_opposite_direction_did() -> None:
    past = [Change(7, {"DEPTH": 3}, {"DEPTH": 4}, -0.021, "")]
    assert words.hypothesis([step("DEPTH", 2)], past, "") == (
        "Lower DEPTH (layers of the model). "
        "Raising DEPTH from 3 to 4 lost 0.021 in #7; the opposite direction is untried."
    )


def test_a_hypothesis_claims_nothing_untried_that_runs_or_was_part_of_more() -> None:
    past = [
        Change(7, {"DEPTH": 3}, {"DEPTH": 4}, -0.021, ""),
        Change(8, {"DEPTH": 3, "DECAY": 0.1}, {"DEPTH": 2, "DECAY": 0.2}, None, ""),
    ]
    assert "untried" not in words.hypothesis([step("DEPTH", 2)], past, "")


def test_a_hypothesis_says_when_nothing_is_known() -> None:
    assert "No experiment has moved it yet." in words.hypothesis([step("DEPTH", 2)], [], "")


def test_a_failure_is_told_as_one() -> None:
    past = [Change(9, {"BATCH": 4096}, {"BATCH": 8192}, None, "oom")]
    told = words.hypothesis([step("BATCH", 2048)], past, "")
    assert "Raising BATCH from 4096 to 8192 ran out of memory in #9" in told


@pytest.mark.parametrize(
    ("name", "new", "expected"),
    [
        ("MATRIX_LR", 0.03, "optimizer"),
        ("DEPTH", 4, "architecture"),
        ("BATCH", 2048, "batch"),
        ("COOLDOWN", 0.6, "schedule"),
    ],
)
def test_a_change_has_the_category_of_its_name(name: str, new: Value, expected: str) -> None:
    assert words.category([step(name, new)]) == expected


def test_an_unknown_researcher_is_refused_with_the_known_and_the_nearest() -> None:
    settings = Settings(Path("."), "nov20")
    with pytest.raises(UsageError, match="serach") as caught:
        researchers.create("serach", settings)
    assert "Did you mean search?" in caught.value.mend
    with pytest.raises(UsageError, match=r"Known are .*search"):
        researchers.create("oracle:big", settings)


def test_search_is_made_by_its_name_and_takes_no_argument() -> None:
    settings = Settings(Path("."), "nov20")
    assert researchers.create("search", settings).name == "search"
    with pytest.raises(UsageError, match="no argument"):
        researchers.create("search:fast", settings)
