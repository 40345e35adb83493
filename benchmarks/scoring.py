"""What scoring and its audit take at scale `cpu`, and what they would take of 2 M tokens at vocabulary 8192 on a GPU.

    python benchmarks/scoring.py [TIMES]

The model of train.py with fresh weights, in the processes of a trial, on the cores and in the sandbox of a trial; the
median of five. The second part is arithmetic, printed with what it starts from; of it only copying in memory is
measured here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness import corpora, machine, start
from harness.ruler import Ruler
from harness.scoring.audit import REPEATED, SWAPPED
from harness.scoring.bench import Bench
from harness.scoring.servers import Servers
from harness.scoring.session import score
from harness.types import Score

ROOT = Path(__file__).parents[1]


def checkpoint(folder: Path, scale: str, vocab: int) -> None:
    """What a training of train.py leaves, without the training. It goes after the model under test is imported."""
    os.environ |= {"AUTORESEARCH_SCALE": scale, "AUTORESEARCH_DEVICE": "cpu"}
    sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    train = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(train)  # type: ignore[union-attr]
    from prepare import write_tensors

    folder.mkdir()
    config = train.model_config()
    assert config["vocab"] == vocab
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(train.build_model(config), folder / "model.safetensors")
    for name in ("train.py", "prepare.py"):
        (folder / name).write_text((ROOT / name).read_text())


async def once(bench: Bench, folder: Path, scratch: Path, cores: tuple[int, ...], warm: bool) -> dict[str, float]:
    """Seconds of one scoring: in all, and of each part by the scorer's own log."""
    servers = await Servers.warm(bench, scratch, cores) if warm else None
    if servers:
        await asyncio.sleep(5)  # as they would have before a training ends
    found = await score(bench, folder, scratch, cores, warm=servers)
    assert isinstance(found, Score), found
    assert found.gap == 0
    return {"in all": found.seconds, **json.loads((folder / "scorer.log").read_text().splitlines()[-1])}


def measure(times: int) -> None:
    """Print the medians at scale `cpu`."""
    ruler = (ROOT / "prepare.py").read_text()
    scale = Ruler.read(ruler).scale("cpu")
    device = machine.pick_device("cpu")
    slots = machine.slots(None, device)
    sandbox = start.shelter(device, len(slots), os.environ, unsandboxed=True)
    corpus = corpora.prepare("python", scale.vocab, start.corpora_cache(os.environ))
    bench = Bench(corpus, "python", scale, "cpu", "cpu", os.environ, sandbox)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "checkpoint")
        checkpoint(folder, "cpu", scale.vocab)
        taken: dict[bool, dict[str, float]] = {}
        for warm in (False, True):
            each = [asyncio.run(once(bench, folder, Path(scratch), slots[0].cores, warm)) for _ in range(times)]
            taken[warm] = {name: statistics.median(seconds[name] for seconds in each) for name in each[0]}
    cold, warmed = taken[False], taken[True]
    work = cold["scored"] + cold["audited"]
    with_start = cold["built for the audit"] + cold["audited"]
    print(
        f"scale cpu, {scale.val_tokens:,} tokens, vocabulary {scale.vocab}, sandbox level {sandbox.level}, "
        f"cores {slots[0].cores}, median of {times}"
    )
    print(f"scoring and audit, process start not counted: {work:.2f} s")
    print(f"  of it pass 1 {cold['scored']:.2f} s, audit {cold['audited']:.2f} s ({cold['audited'] / work:.0%})")
    print(f"with process start:                           {cold['in all']:.2f} s")
    print(f"  of it the audit's, its server's model built {with_start:.2f} s ({with_start / cold['in all']:.0%})")
    print(f"with servers that were warm:                  {warmed['in all']:.2f} s")


def copying() -> float:
    """Bytes a second from one buffer to another, one thread."""
    source, target = (np.ones(1 << 26, np.uint8) for _ in range(2))
    times = []
    for _ in range(7):
        began = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - began)
    return source.nbytes / statistics.median(times)


def project() -> None:
    """Print what 2 M tokens at vocabulary 8192 would take on an H100, and from what."""
    scale = Ruler.read((ROOT / "prepare.py").read_text()).scale("gpu")
    tokens, rows = scale.val_tokens, scale.val_tokens // scale.context
    parameters, layers, width = 50.3e6, 8, 512  # karpathy/autoresearch's model on an H100
    flops = 2 * parameters * tokens + 4 * layers * width * tokens * scale.context / 2
    arithmetic = flops / (0.4 * 989e12)
    launching = rows * layers * 40 * 5e-6
    forward = max(arithmetic, launching)
    softmax = 5 * tokens * scale.vocab * 4 / 3.35e12
    print(f"\nprojected, not measured: scale gpu, {tokens:,} tokens, vocabulary {scale.vocab}, one H100")
    print(f"  forward: {flops:.1e} operations at 40 % of 989 TFLOP/s take {arithmetic:.1f} s; one row a chunk, {rows}")
    print(f"  chunks of {layers * 40} kernels at 5 us to launch, {launching:.1f} s: {forward:.1f} s")
    print(f"  log-softmax on the GPU: five passes over float32 at 3.35 TB/s, {softmax:.1f} s")
    print(f"  copying from memory to memory on this machine: {copying() / 1e9:.1f} GB/s a thread")
    for name, size in (("float32", 4), ("bfloat16", 2)):
        moved = tokens * scale.vocab * size
        for how, speed in (("pageable, 8 GB/s", 8e9), ("pinned, 50 GB/s", 50e9)):
            leg = moved / speed
            first = forward + 2 * leg + softmax
            audit = (SWAPPED + REPEATED) * (forward + leg)
            print(
                f"  {name} logits, {moved / 1e9:.0f} GB, to shared memory and from it ({how}): 2 x {leg:.1f} s; "
                f"pass 1 {first:.0f} s, audit {audit:.0f} s ({audit / (first + audit):.0%})"
            )


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    project()
