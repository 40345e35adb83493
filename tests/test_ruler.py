"""The constants of prepare.py, read without running it, and the form of a budget."""

from pathlib import Path

import pytest

from harness.errors import ContractError, UsageError
from harness.ruler import Budget, Ruler, parse_budget

RULER = (Path(__file__).parents[1] / "prepare.py").read_text(encoding="utf-8")
TINY = 'SCALES = {"cpu": {"context": 8, "vocab": 16, "budget": "steps:3", "val_tokens": 64}}\n'


def test_the_rulers_scales_are_read():
    ruler = Ruler.read(RULER)
    assert ruler.scale("gpu").context == 2048
    assert ruler.scale("cpu").budget == "cpu:30"
    assert all(scale.val_tokens % scale.context == 0 for scale in ruler.scales.values())


def test_reading_runs_nothing():
    assert Ruler.read("raise SystemExit\n" + TINY).scale("cpu").vocab == 16


def test_an_annotated_assignment_is_read_too():
    assert Ruler.read(TINY.replace("SCALES", "SCALES: dict", 1)).scale("cpu").context == 8


def test_the_hash_follows_the_constants_alone():
    same = "# a comment\n" + TINY.replace(", ", ",   ") + "def batches(): ...\n"
    assert Ruler.read(same).hash == Ruler.read(TINY).hash
    assert Ruler.read(TINY.replace("64", "128")).hash != Ruler.read(TINY).hash
    assert len(Ruler.read(TINY).hash) == 12


def test_an_unknown_scale_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="cpu"):
        Ruler.read(TINY).scale("tpu")


@pytest.mark.parametrize(
    "broken",
    [
        TINY.replace("8", "len('x')", 1),
        TINY.replace('"context": 8, ', ""),
        TINY.replace("16", "0"),
        TINY.replace("16", "True"),
        TINY.replace("16", "1.5"),
        TINY.replace("steps:3", "3 steps"),
        TINY.replace('"steps:3"', "3"),
        "SCALES = []\n",
        "SCALES = {'cpu': 3}\n",
    ],
)
def test_scales_that_are_no_literal_columns_are_named_with_their_line(broken):
    with pytest.raises(ContractError, match=r"prepare\.py, line 2"):
        Ruler.read("\n" + broken)


@pytest.mark.parametrize("text", ["", "scales = {}", "SCALES = ("])
def test_a_text_without_scales_is_no_ruler(text):
    with pytest.raises(ContractError, match="line 1"):
        Ruler.read(text)


@pytest.mark.parametrize("text", ["wall:300", "cpu:30", "cpu:0.5", "steps:40", "steps:12345678"])
def test_a_budget_reads_as_it_was_written(text):
    assert str(parse_budget(text)) == text


def test_a_budget_has_kind_and_amount():
    assert parse_budget(" cpu:30 ") == Budget("cpu", 30.0)


@pytest.mark.parametrize(
    "text", ["", "30", "cpu", "cpu:", "cpu:0", "cpu:-1", "cpu:nan", "wall:inf", "gpu:3", "steps:1.5", "cpu:3:4"]
)
def test_what_is_no_budget_is_refused_and_the_form_is_named(text):
    with pytest.raises(UsageError, match="wall:SECONDS, cpu:SECONDS or steps:N"):
        parse_budget(text)
