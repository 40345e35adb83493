"""The documents keep what they say: links lead somewhere, and what they name exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_test_and_benchmark_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    for path in re.findall(r"\b(?:harness|tests|benchmarks|docs)/[\w/.-]*\w\.(?:py|md|csv)\b", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"-m (harness\.\w+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_ci_finds_the_command_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text()
    (extract,) = re.findall(r"\$\((grep .*? README\.md)\)", script)
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "pip install -e '.[test]' && python -m pytest\n"


def test_no_placeholder_is_left() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"@[A-Z]+@", document.read_text()), document
