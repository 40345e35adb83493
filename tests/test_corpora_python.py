"""The `python` corpus: whole distributions to one split, and nothing that training needs is measured on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from harness.corpora import Corpus, see_that_nothing_is_shown
from harness.corpora.python import InstalledPython, deal, fair_share
from harness.corpora.scripts import Origin, Script, is_table, origins, read
from harness.errors import CorpusError
from harness.libraries import shown_distributions


class Site:
    """A folder of installed distributions, and a standard library beside it."""

    def __init__(self, folder: Path) -> None:
        self.packages, self.standard = folder / "site-packages", folder / "lib"
        self.write(self.standard / "json.py", code("json", 40))
        self.write(self.standard / "email" / "mime.py", code("mime", 40))

    def write(self, path: Path, text: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def install(self, name: str, files: dict[str, str | bytes], needs: Iterable[str] = (), record: bool = True) -> None:
        """A distribution, as an installer leaves it."""
        info = self.packages / f"{name.replace('-', '_')}-1.0.dist-info"
        requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
        self.write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
        for file, text in files.items():
            self.write(self.packages / file, text)
        if record:
            self.write(info / "RECORD", "".join(f"{file},,\n" for file in files))
        else:
            (info / "RECORD").unlink(missing_ok=True)
            self.write(info / "top_level.txt", "\n".join({file.split("/")[0].removesuffix(".py") for file in files}))

    def source(self, limit: int = 10**9, held: int = 60_000, least: int = 20_000) -> InstalledPython:
        return InstalledPython([str(self.packages)], self.standard, limit=limit, held=held, least=least)


def code(topic: str, functions: int = 100) -> str:
    """Some functions about a topic, unlike those of other topics."""
    return "\n\n".join(
        f"def {topic}_{n}(first, second):\n    return {topic}_table[first] + {topic}_rows[{n}]"
        for n in range(functions)
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "env")
    site.install("torch", {"torch/__init__.py": code("torch")}, needs=["SymPy>=1", "absent", "extra; extra == 'all'"])
    site.install("sympy", {"sympy/__init__.py": code("sympy")})
    site.install("extra", {"extra/__init__.py": code("extra")})
    for number in range(40):
        site.install(f"pkg-{number}", {f"pkg_{number}/{part}.py": code(f"p{number}{part}") for part in "abc"})
    return site


def dealt(source: InstalledPython) -> dict[str, dict[str, list[str]]]:
    """Documents by split and unit."""
    splits: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}, "holdout": {}}
    for unit in source.units():
        splits[unit.split][unit.name] = list(unit.documents())
    return splits


def test_what_training_needs_and_the_standard_library_are_train(site: Site) -> None:
    splits = dealt(site.source())
    assert {"torch 1.0", "sympy 1.0"} <= set(splits["train"])
    assert next(iter(splits["train"])).startswith("standard library 3.")
    assert len(next(iter(splits["train"].values()))) == 2


def test_whole_distributions_go_to_one_split(site: Site) -> None:
    names = [set(units) for units in dealt(site.source()).values()]
    assert len(set.union(*names)) == sum(map(len, names)) == 1 + 2 + 1 + 40
    assert all(len(units) > 2 for units in names)


def test_the_order_on_disk_does_not_matter(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    for number in reversed(range(40)):
        other.install(f"pkg-{number}", {f"pkg_{number}/{part}.py": code(f"p{number}{part}") for part in "cba"})
    other.install("extra", {"extra/__init__.py": code("extra")})
    other.install("sympy", {"sympy/__init__.py": code("sympy")})
    other.install("torch", {"torch/__init__.py": code("torch")}, needs=["SymPy>=1"])
    assert dealt(other.source()) == dealt(site.source())
    assert other.source().stamp() == site.source().stamp()


def test_another_distribution_moves_no_other_to_another_split(site: Site) -> None:
    before = dealt(site.source(held=1))
    site.install("one-more", {"one_more.py": code("more")})
    after = dealt(site.source(held=1))
    assert site.source().stamp()
    assert all(set(before[split]) - set(after[split]) == set() for split in before)


def test_val_and_holdout_take_from_train_until_they_have_enough(site: Site) -> None:
    units = site.source(held=180_000).units()
    held = {split: sum(unit.size for unit in units if unit.split == split) for split in ("val", "holdout")}
    assert min(held.values()) >= 180_000


def test_too_little_to_measure_on_is_an_error_with_the_figures(site: Site) -> None:
    with pytest.raises(CorpusError, match=r"has 0\.\d\d MB of text for (val|holdout); it needs 1\.50 MB"):
        site.source(held=3_000_000, least=1_500_000).units()


def test_no_distribution_at_all_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"0\.00 MB of text for val"):
        Site(tmp_path).source().units()


def test_the_limit_holds_and_every_distribution_has_a_part(site: Site) -> None:
    units = site.source(limit=900_000).units()
    assert 700_000 < sum(unit.size for unit in units) <= 900_000
    assert len(units) == 1 + 2 + 1 + 40


def test_a_file_that_stands_in_val_line_by_line_is_left_out_of_train(site: Site) -> None:
    val = dealt(site.source())["val"]
    borrowed = "# Borrowed, and altered a little.\n" + next(iter(val.values()))[0].replace("first", "first", 1)
    site.install("torch", {"torch/borrowed.py": borrowed, "torch/own.py": code("own")})
    assert dealt(site.source())["train"]["torch 1.0"] == [code("own")]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mod/latin.py", "name = 'é'\n".encode("latin-1") * 50),
        ("mod/huge.py", code("huge") * 400),
        ("mod/table.py", "TABLE = [\n" + "    0x00, 0x01, 0x02, 0x03,\n" * 200 + "]\n"),
        ("mod/made.py", "DATA = '" + "abcdefgh" * 500 + "'\n"),
        ("mod/_vendor/requests.py", code("requests")),
        ("__editable___mod_finder.py", code("finder")),
        ("../../bin/mod.py", code("command")),
        ("mod/data.txt", code("data")),
        ("mod/empty.py", ""),
    ],
)
def test_what_is_no_source_that_a_person_wrote_is_left_out(site: Site, file: str, content: str | bytes) -> None:
    site.install("torch", {file: content, "mod/good.py": code("good")})
    assert dealt(site.source())["train"]["torch 1.0"] == [code("good")]


def test_a_distribution_without_a_record_is_read_by_its_top_level_names(site: Site) -> None:
    site.install("torch", {"torch/deep/er.py": code("er"), "single.py": code("single")}, record=False)
    (site.packages / "torch" / "__init__.py").unlink()
    assert sorted(dealt(site.source())["train"]["torch 1.0"]) == sorted([code("er"), code("single")])


def test_a_record_of_files_that_are_gone_does_no_harm(site: Site) -> None:
    site.install("torch", {"torch/gone.py": code("gone"), "torch/here.py": code("here")})
    (site.packages / "torch" / "gone.py").unlink()
    assert dealt(site.source())["train"]["torch 1.0"] == [code("here")]


def test_links_are_followed_once_and_loops_do_no_harm(site: Site, tmp_path: Path) -> None:
    store = tmp_path / "store" / "linked.py"
    site.write(store, code("linked"))
    site.install("torch", {"torch/a.py": "", "torch/b.py": "", "torch/loop.py": "", "torch/broken.py": ""})
    for name, target in {"a": store, "b": store, "loop": "loop.py", "broken": "nowhere.py"}.items():
        link = site.packages / "torch" / f"{name}.py"
        link.unlink()
        link.symlink_to(target)
    (site.standard / "again").symlink_to(site.standard)
    splits = dealt(site.source())
    assert splits["train"]["torch 1.0"] == [code("linked")]
    assert len(next(iter(splits["train"].values()))) == 2


def test_a_file_of_two_distributions_belongs_to_what_training_needs(site: Site) -> None:
    site.install("aaa", {"shared.py": code("shared"), "aaa.py": code("aaa")})
    site.install("torch", {"shared.py": code("shared")})
    found = {origin.name: [s.name for s in origin.scripts] for origin in origins(["torch"], [str(site.packages)])}
    assert found["torch"] == ["shared.py"]
    assert found["aaa"] == ["aaa.py"]


def test_a_distribution_in_an_archive_is_passed_over(site: Site, tmp_path: Path) -> None:
    egg = tmp_path / "zipped-1.0.zip"
    with zipfile.ZipFile(egg, "w") as archive:
        archive.writestr("zipped.py", code("zipped"))
        archive.writestr("zipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1.0\n")
        archive.writestr("zipped-1.0.dist-info/RECORD", "zipped.py,,\n")
    found = origins([], [str(egg), str(site.packages)], site.standard)
    assert next(origin for origin in found if origin.name == "zipped").scripts == ()


def test_a_folder_of_metadata_without_a_name_is_passed_over(site: Site) -> None:
    site.write(site.packages / "broken-1.0.dist-info" / "METADATA", "")
    site.write(site.packages / "bare-1.0.dist-info" / "RECORD", "bare.py,,\n")
    assert dealt(site.source())["val"]


def test_the_harness_is_never_in_it() -> None:
    found = origins([])
    assert not any("harness/loop.py" in script.name for origin in found for script in origin.scripts)
    assert "autoresearch-harness" not in {origin.name for origin in found}


def test_here_val_and_holdout_are_of_what_no_trial_is_shown() -> None:
    needed = shown_distributions()
    units = InstalledPython().units()
    held = {unit.name.split()[0] for unit in units if unit.split != "train"}
    assert len(held) >= 4
    assert not held & needed
    assert not any(unit.name.startswith("standard library") for unit in units if unit.split != "train")


def test_tables_are_known_from_code() -> None:
    assert not is_table(Path(__file__).read_bytes())
    assert not is_table("# Ein Text über Größe und Maß: äöüß.\n".encode() * 100)
    assert is_table(b"ROW = (0x1f600, 0x1f601, 0x1f602)\n" * 100)


def test_line_ends_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"a = 1\r\nb = 2\n")
    assert read(Script("a.py", tmp_path / "a.py", 13)) == "a = 1\r\nb = 2\n"


@pytest.mark.parametrize(
    ("sizes", "budget", "cap"),
    [([], 10, 0), ([1, 2, 3], 6, 3), ([1, 5, 5], 7, 3), ([4, 4, 4], 6, 2), ([9], 0, 0), ([5, 5], -3, 0)],
)
def test_a_fair_share_spends_the_budget_and_no_more(sizes: list[int], budget: int, cap: int) -> None:
    assert fair_share(sizes, budget) == cap


def test_dealing_gives_every_distribution_once() -> None:
    made = [Origin(f"d{n}", "1", (Script("a.py", Path("a.py"), 1000),)) for n in range(30)]
    splits = deal(made, held=8000)
    assert sorted(o.name for members in splits.values() for o in members) == sorted(o.name for o in made)
    assert len(splits["val"]) >= 8
    assert len(splits["holdout"]) >= 8


@pytest.mark.parametrize(
    ("split", "unit"), [("val", "torch 2.13.0"), ("holdout", "numpy 2.0"), ("train", "torch 2.13")]
)
def test_held_out_text_that_trials_are_shown_by_now_stops_a_run(corpus: Corpus, split: str, unit: str) -> None:
    shards = {**corpus.manifest.shards, split: (replace(corpus.manifest.shards[split][0], unit=unit),)}
    changed = replace(corpus, manifest=replace(corpus.manifest, name="python", shards=shards))
    with nullcontext() if split == "train" else pytest.raises(CorpusError, match=unit.split()[0]):
        see_that_nothing_is_shown(changed)
