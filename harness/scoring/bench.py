"""Where and by what checkpoints are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.corpora import Corpus
from harness.corpora.source import Split
from harness.machine import Gpu
from harness.ruler import Scale
from harness.sandbox.walls import Sandbox


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and by what a checkpoint is scored: the same for all trials of an arena."""

    corpus: Corpus
    corpus_spec: str
    """As it was asked for: `python`, a path."""
    scale: Scale
    scale_name: str
    device: str
    environ: Mapping[str, str]
    """Ours; a process under test gets an allowlist of it."""
    sandbox: Sandbox
    """What stands around each process under test."""
    split: Split = "val"


def visible(gpu: Gpu | None) -> dict[str, str]:
    """Which GPU a process sees: its own and no other."""
    return {"CUDA_VISIBLE_DEVICES": gpu.uuid if gpu else ""}
