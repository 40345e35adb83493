"""The contract at the top of a train.py: reading, editing, comparing texts."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import hyperparameters
from harness.errors import ContractError
from harness.hyperparameters import Choice, Hyperparameter, Range, Value

SOURCE = '''"""A small train.py, with a naïve docstring."""
from prepare import pick

# -- Model --
# layers of the model [gpu 4..24 int, cpu 1..6 int]
DEPTH = pick(gpu=8, cpu=2)
# attention window of each layer: S short, L full [SSSL | SSSSL | L]
WINDOW = "SSSL"
TIED = False  # share embedding and head [True | False]

# -- Optimizer --
# tokens of one step, of which a row [B, T]
# is a part [65536..2097152 int log]
BATCH = pick(gpu=524_288, cpu=65_536)
# learning rate of the matrices
# [0.005..0.2 log]
MATRIX_LR = pick(gpu=0.04, cpu=0.020)   # größer ist schneller
HEAD_LR = 4e-3  # of the head, [0.0005..0.05 log], before scaling
DECAY = 0  # weight decay [0.0..0.5]
SEED_WORDS = "none"  # free text, see [2]
NAMES = ("a", "b")
DERIVED = DEPTH * 64


def build_model(config):
    """Docs."""
    return None


def main():
    pass


if __name__ == "__main__":
    main()
'''


def by_name(source: str, scale: str = "cpu") -> dict[str, Hyperparameter]:
    return {item.name: item for item in hyperparameters.read(source, scale)}


def only(line: str, scale: str = "cpu") -> Hyperparameter:
    [item] = hyperparameters.read(line + "\n", scale)
    return item


def test_every_literal_constant_is_read_in_the_order_of_the_file() -> None:
    names = ["DEPTH", "WINDOW", "TIED", "BATCH", "MATRIX_LR", "HEAD_LR", "DECAY", "SEED_WORDS"]
    assert list(by_name(SOURCE)) == names


def test_a_scale_sees_its_own_value_and_range() -> None:
    assert by_name(SOURCE, "gpu")["DEPTH"].value == 8
    assert by_name(SOURCE, "cpu")["DEPTH"].value == 2
    assert by_name(SOURCE, "gpu")["DEPTH"].range == Range(4, 24, integer=True)
    assert by_name(SOURCE, "cpu")["DEPTH"].range == Range(1, 6, integer=True)


def test_a_scale_that_a_range_leaves_out_is_not_searched() -> None:
    assert only("DEPTH = 8  # layers [gpu 4..24 int]", "cpu").range is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("LR = 0.04  # rate [0.005..0.2 log]", Range(0.005, 0.2, log=True)),
        ("LR = -0.5  # rate [-1.0..1.0]", Range(-1.0, 1.0)),
        ("LR = 1  # rate [0.5..2]", Range(0.5, 2)),
        ("B = 2**0  # no literal", None),
        ("B = 65536  # tokens [65_536..2097152 int log]", Range(65536, 2097152, log=True, integer=True)),
        ("B = 65536  # tokens [65536 | 131072 | 262144]", Choice((65536, 131072, 262144))),
        ("S = 0.5  # scale [0.5 | 1]", Choice((0.5, 1.0))),
        ('W = "L"  # window ["SL" | "L"]', Choice(("SL", "L"))),
        ("T = True  # tied [True | False]", Choice((True, False))),
        ("D: int = 3  # layers [1..6 int]", Range(1, 6, integer=True)),
    ],
)
def test_each_form_of_range_is_understood(line: str, expected: Range | Choice | None) -> None:
    assert [item.range for item in hyperparameters.read(line + "\n", "cpu")] in ([expected], [])
    assert expected is None or only(line).range == expected


def test_the_comment_is_the_prose_without_the_range() -> None:
    comments = {name: item.comment for name, item in by_name(SOURCE).items()}
    assert comments["DEPTH"] == "layers of the model"
    assert comments["BATCH"] == "tokens of one step, of which a row [B, T] is a part"
    assert comments["HEAD_LR"] == "of the head, before scaling"


def test_a_bracket_that_does_not_read_like_a_range_is_prose() -> None:
    for bracket in ("[B, T]", "[0, 1]", "[2]", "[]", "[see below]"):
        item = only(f"LR = 0.04  # rate {bracket}")
        assert item.range is None
        assert item.comment == f"rate {bracket}"


def test_a_comment_above_a_blank_line_belongs_to_nothing() -> None:
    assert only("# rate [0.1..0.8]\n\nLR = 0.04").range is None


def test_a_trailing_comment_of_the_line_above_stays_there() -> None:
    items = by_name("A = 0.5  # one [0.1..0.8]\nB = 0.5\n")
    assert items["A"].range is not None
    assert items["B"].range is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("LR = 0.1  # [0.8..0.1]", "not below"),
        ("LR = 0.1  # [0..0.8 log]", "above 0"),
        ("LR = 0.1  # [0.1..0.8 lgo]", "lgo"),
        ("LR = 0.1  # [0.1.. log]", "is no number"),
        ("LR = 0.1  # [0.1, 0.8 log]", "is no range"),
        ("LR = 0.9  # [0.1..0.8]", "outside"),
        ("LR = 0.1  # [0.1..0.8 log log]", "once"),
        ("LR = 0.1  # [0.1..inf]", "is no number"),
        ("LR = 0.1  # [__import__('os')..2]", "is no number"),
        ("D = 4.0  # [1..6 int]", "no whole number"),
        ("D = 4  # [1..6]", "say int"),
        ("D = 4  # [1.5..6 int]", "whole bounds"),
        ("D = 4  # [gpu 4..8 int, 1..6 int]", "gpu or cpu"),
        ("D = 4  # [cpu 4..8 int, cpu 1..6 int]", "two ranges"),
        ("D = 4  # [gpu 9..8 int, cpu 1..6 int]", "not below"),
        ("D = 4  # [2 | 4.5]", "no whole number"),
        ("D = 4  # [2 | 3]", "outside"),
        ("D = 4  # [4 | 4]", "twice"),
        ("D = 4  # [4 | ]", "empty"),
        ("T = True  # [True | no]", "neither True nor False"),
        ("T = True  # [0..1 int]", "is no number"),
        ('W = "L"  # [0..1]', "is no number"),
        ("D = 4  # [1..6 int]\nD = 5", "already"),
        ("D = 2 + 2  # [1..6 int]", "no literal"),
        ("D = pick(gpu=4)  # [1..6 int]", "both scales"),
        ("D = pick(4, 2)", "both scales"),
    ],
)
def test_a_malformed_range_names_and_shows_its_line_and_says_how(line: str, complaint: str) -> None:
    with pytest.raises(ContractError) as caught:
        hyperparameters.read("import os\n" + line + "\n", "cpu")
    number = 1 + len(line.split("\n"))
    assert complaint in caught.value.problem
    assert f"line {number}" in caught.value.problem
    assert line.split("\n")[-1] in caught.value.problem
    assert caught.value.mend


def test_an_edit_changes_the_literal_of_its_scale_and_no_other_byte() -> None:
    edited = hyperparameters.edit(SOURCE, "cpu", {"MATRIX_LR": 0.055, "DEPTH": 3, "WINDOW": "L", "TIED": True})
    assert edited == (
        SOURCE.replace("cpu=0.020", "cpu=0.055")
        .replace("cpu=2)", "cpu=3)")
        .replace('WINDOW = "SSSL"', 'WINDOW = "L"')
        .replace("TIED = False", "TIED = True")
    )


def test_an_edit_to_the_present_value_leaves_every_byte() -> None:
    present = {item.name: item.value for item in hyperparameters.read(SOURCE, "gpu")}
    assert hyperparameters.edit(SOURCE, "gpu", present) == SOURCE


def test_an_edit_keeps_line_ends_and_wide_characters() -> None:
    source = 'x = "größe"; LR = 0.5  # größer [0.1..0.8]\r\nD = 2  # [1..6 int]\r\n'
    edited = hyperparameters.edit(source, "cpu", {"LR": 0.25, "D": 5})
    assert edited == source.replace("0.5 ", "0.25 ").replace("D = 2", "D = 5")


def test_whole_numbers_keep_their_underscores() -> None:
    assert "cpu=131_072" in hyperparameters.edit(SOURCE, "cpu", {"BATCH": 131072})
    assert "B = 131072" in hyperparameters.edit("B = 65536\n", "cpu", {"B": 131072})


def test_a_float_is_written_with_four_significant_digits() -> None:
    assert "cpu=0.06125)" in hyperparameters.edit(SOURCE, "cpu", {"MATRIX_LR": 0.061251234})
    assert "DECAY = 0.3333 " in hyperparameters.edit(SOURCE, "cpu", {"DECAY": 1 / 3})


def test_a_float_rounded_out_of_its_range_is_written_as_the_bound() -> None:
    line = "LR = 0.02  # [0.0123456..0.0299996]\n"
    for bound in (0.0123456, 0.0299996):
        assert only(hyperparameters.edit(line, "cpu", {"LR": bound})).value == bound


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPTH", 7),
        ("DEPTH", 2.0),
        ("DEPTH", True),
        ("WINDOW", "SSL"),
        ("TIED", 1),
        ("MATRIX_LR", 0.3),
        ("MATRIX_LR", "0.1"),
        ("MATRIX_LR", math.nan),
        ("SEED_WORDS", 3),
        ("NOWHERE", 3),
        ("DERIVED", 128),
    ],
)
def test_an_edit_that_breaks_the_contract_is_refused(name: str, value: Value) -> None:
    with pytest.raises(ContractError, match=name):
        hyperparameters.edit(SOURCE, "cpu", {name: value})


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.005, 0.2),
    decay=st.floats(0.0, 0.5),
    depth=st.integers(1, 6),
    batch=st.integers(65536, 2097152),
    window=st.sampled_from(["SSSL", "SSSSL", "L"]),
)
def test_what_was_edited_is_read_back(rate: float, decay: float, depth: int, batch: int, window: str) -> None:
    values: dict[str, Value] = {
        "MATRIX_LR": hyperparameters.short(rate),
        "DECAY": hyperparameters.short(decay),
        "DEPTH": depth,
        "BATCH": batch,
        "WINDOW": window,
    }
    edited = by_name(hyperparameters.edit(SOURCE, "cpu", values))
    assert {name: edited[name].value for name in values} == values


@settings(max_examples=100, deadline=None)
@given(position=st.floats(0, 1), log=st.booleans(), integer=st.booleans())
def test_a_position_in_a_range_gives_a_value_inside_and_back(position: float, log: bool, integer: bool) -> None:
    limits = Range(7, 4_000_001, log, integer)
    value = limits.at(position)
    assert value in limits
    assert limits.at(limits.position(value)) == value


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("# layers", "# some layers"),
        SOURCE.replace("\n\n\n", "\n\n"),
        SOURCE.replace("    ", "\t"),
        SOURCE.replace("cpu=0.020", "cpu=2e-2"),
        SOURCE.replace("524_288", "524288").replace('"SSSL"', "'SSSL'"),
        SOURCE.replace('    """Docs."""\n', ""),
        SOURCE.replace('"""A small', '"""Another small'),
        SOURCE.replace("\n", "\r\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_fingerprint(other: str) -> None:
    assert other != SOURCE
    assert hyperparameters.fingerprint(other) == hyperparameters.fingerprint(SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("cpu=0.020", "cpu=0.021"),
        SOURCE.replace("cpu=2)", "cpu=True)"),
        SOURCE.replace("    main()", "main()"),
        SOURCE.replace('"""Docs."""', '"""Docs."""; config.clear()'),
        SOURCE.replace("return None", 'return "None"'),
        SOURCE.replace("pass", "pass; 'not a docstring'"),
    ],
)
def test_any_change_of_code_changes_the_fingerprint(other: str) -> None:
    assert other != SOURCE
    assert hyperparameters.fingerprint(other) != hyperparameters.fingerprint(SOURCE)


@pytest.mark.parametrize("broken", ["def (", "x = 'open", "\x00", "\ud800", "(" * 5000])
def test_a_text_that_does_not_parse_still_has_a_fingerprint_of_its_own(broken: str) -> None:
    assert hyperparameters.fingerprint(broken) == hyperparameters.fingerprint(broken)
    assert hyperparameters.fingerprint(broken) != hyperparameters.fingerprint(broken + " ")


def test_the_skeleton_ignores_values_and_nothing_else() -> None:
    edited = hyperparameters.edit(SOURCE, "cpu", {"MATRIX_LR": 0.055, "WINDOW": "L", "TIED": True})
    assert hyperparameters.skeleton(edited, "cpu") == hyperparameters.skeleton(SOURCE, "cpu")
    changed = SOURCE.replace("DEPTH * 64", "DEPTH * 32")
    assert hyperparameters.skeleton(changed, "cpu") != hyperparameters.skeleton(SOURCE, "cpu")
    other_scale = SOURCE.replace("gpu=0.04", "gpu=0.05")
    assert hyperparameters.skeleton(other_scale, "cpu") != hyperparameters.skeleton(SOURCE, "cpu")


def test_a_template_reads_the_values_of_a_text_that_differs_in_nothing_else() -> None:
    template = hyperparameters.Template(SOURCE, "cpu")
    edited = hyperparameters.edit(SOURCE, "cpu", {"MATRIX_LR": 0.055, "WINDOW": "SSSSL", "TIED": True, "DEPTH": 5})
    assert template.match(edited) == {item.name: item.value for item in hyperparameters.read(edited, "cpu")}
    assert template.code == hyperparameters.skeleton(edited, "cpu")


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("DEPTH * 64", "DEPTH * 32"),
        SOURCE + "x = 1\n",
        SOURCE.replace("cpu=0.020", "cpu=0.02 + 0.01"),
        SOURCE.replace("cpu=0.020", "cpu=0.02, dpu=3"),
        SOURCE.replace("cpu=0.020", "cpu=None"),
        "",
    ],
)
def test_a_template_does_not_match_another_text(other: str) -> None:
    assert other != SOURCE
    assert hyperparameters.Template(SOURCE, "cpu").match(other) is None


def test_syntax_tokens_count_code_alone() -> None:
    assert hyperparameters.syntax_tokens("x = f(1)  # six\n\n") == 6
    assert hyperparameters.syntax_tokens('def f(a):\n    """Docs."""\n    return a\n') == 8


def test_the_fixture_keeps_the_contract() -> None:
    hyperparameters.check(SOURCE, "cpu")
    hyperparameters.check(SOURCE, "gpu")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (SOURCE.replace("def build_model", "def make_model"), "build_model"),
        (SOURCE.replace("build_model(config)", "build_model(config, extra=1)"), "exactly one"),
        (SOURCE.replace("build_model(config)", "build_model(*config)"), "exactly one"),
        (SOURCE.replace("build_model(config)", "build_model()"), "exactly one"),
        (SOURCE.replace("def main", "def mane"), "main"),
        (SOURCE.replace('__name__ == "__main__"', "True"), "__name__"),
        (SOURCE.replace("[0.005..0.2 log]", "[0.2..0.005 log]"), "MATRIX_LR"),
        (SOURCE.replace("pass", "pass)"), "line 31"),
        (SOURCE + "#" * 300_000, "bytes"),
        (SOURCE + "\x00", "null byte"),
        (SOURCE + "\ud800", "UTF-8"),
    ],
)
def test_a_broken_contract_is_named(source: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint) as caught:
        hyperparameters.check(source, "cpu")
    assert caught.value.mend


def test_an_odd_escape_in_a_text_raises_no_warning() -> None:
    hyperparameters.check(SOURCE + "PATTERN = '\\d'\n", "cpu")
    assert hyperparameters.fingerprint("x = '\\d'")


@pytest.mark.parametrize("scale", ["gpu", "cpu"])
def test_the_train_py_of_the_project_reads_cleanly(scale: str) -> None:
    path = Path(__file__).parents[1] / "train.py"
    source = path.read_text(encoding="utf-8")
    hyperparameters.check(source, scale)
    items = hyperparameters.read(source, scale)
    searched = {item.name: item.value for item in items if item.range is not None}
    assert len(searched) >= 8
    assert all(item.comment for item in items if item.range is not None)
    assert ast.parse(hyperparameters.edit(source, scale, searched))
