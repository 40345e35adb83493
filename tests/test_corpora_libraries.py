"""Which distributions training needs: the closure of what is installed, by its metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.libraries import installed, normalise, shown_distributions, tops, training_distributions


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path


def install(site: Path, name: str, *needs: str, version: str = "1.0") -> None:
    info = site / f"{normalise(name).replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


def closure(site: Path, *roots: str) -> set[str]:
    return set(training_distributions([str(site)], roots))


def test_needs_are_followed_to_the_end(site: Path) -> None:
    install(site, "torch", "a>=1", "b[fast] (<3)")
    install(site, "a", "c")
    install(site, "b")
    install(site, "c")
    install(site, "other", "a")
    assert closure(site, "torch") == {"torch", "a", "b", "c"}


def test_circles_end(site: Path) -> None:
    install(site, "a", "b")
    install(site, "b", "a")
    assert closure(site, "a") == {"a", "b"}


def test_markers_are_evaluated_for_this_interpreter(site: Path) -> None:
    install(site, "torch", "old; python_version < '3'", "new; python_version >= '3'", "win; sys_platform == 'win32'")
    for name in ("old", "new", "win"):
        install(site, name)
    assert closure(site, "torch") == {"torch", "new"}


def test_optional_extras_are_skipped(site: Path) -> None:
    install(site, "torch", "optree; extra == 'optree'")
    install(site, "optree")
    assert closure(site, "torch") == {"torch"}


def test_extras_that_a_need_asks_for_are_followed(site: Path) -> None:
    install(site, "torch", "cuda-toolkit[cublas]==13")
    install(site, "cuda-toolkit", "nvidia-cublas; extra == 'cublas'", "nvidia-nvcc; extra == 'nvcc'")
    install(site, "nvidia-cublas")
    install(site, "nvidia-nvcc")
    assert closure(site, "torch") == {"torch", "cuda-toolkit", "nvidia-cublas"}


def test_names_are_compared_as_installers_do(site: Path) -> None:
    install(site, "torch", "Typing_Extensions")
    install(site, "typing.extensions")
    assert closure(site, "Torch") == {"torch", "typing-extensions"}


def test_what_is_not_installed_is_not_named(site: Path) -> None:
    install(site, "torch", "triton")
    assert closure(site, "torch", "numpy") == {"torch"}


def test_metadata_that_cannot_be_parsed_is_passed_over(site: Path) -> None:
    install(site, "torch", "this is ; not > a requirement", "a")
    install(site, "a")
    assert closure(site, "torch") == {"torch", "a"}


def test_of_two_the_one_that_is_imported_counts(site: Path) -> None:
    install(site / "first", "a", "b")
    install(site / "second", "a", "c", version="2.0")
    install(site / "second", "b")
    install(site / "second", "c")
    paths = [str(site / "first"), str(site / "second")]
    assert training_distributions(paths, ["a"]) == {"a", "b"}
    assert installed(paths)["a"].version == "1.0"


def test_here_training_needs_torch_and_what_torch_imports() -> None:
    assert {"torch", "numpy", "safetensors", "sympy", "typing-extensions"} <= training_distributions()
    assert not {"pytest", "optuna", "openai"} & training_distributions()


def record(site: Path, name: str, *files: str) -> None:
    """What an installed distribution holds."""
    (next(site.glob(f"{name}-*.dist-info")) / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_a_distribution_of_which_training_holds_a_copy_is_shown_too(site: Path) -> None:
    for name in ("torch", "packaging", "attrs", "other"):
        install(site, name)
    record(site, "torch", "torch/_vendor/packaging/version.py", "torch/_vendor/attr/__init__.py", "torch/other/a.py")
    record(site, "packaging", "packaging/version.py")
    record(site, "attrs", "attr/__init__.py", "attrs/__init__.py")
    assert shown_distributions([str(site)]) == {"torch", "packaging", "attrs"}


def test_tops_are_what_lies_in_the_folder_of_packages(site: Path) -> None:
    install(site, "a")
    record(site, "a", "a/b/c.py", "single.py", "../../bin/tool", "__pycache__/single.pyc")
    (found,) = installed([str(site)]).values()
    assert tops(found) == {"a", "single.py"}
    assert {"a/b", "single.py"} <= tops(found, 2)
