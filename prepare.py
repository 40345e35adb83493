"""The ruler: constants, data and clock of an experiment. Fixed: no researcher, and no person, edits this file.

`train.py` imports from here whatever it may know: `SCALE`, `CONTEXT`, `VOCAB_SIZE`, `SEED`, `DEVICE`, and

    pick(gpu=..., cpu=...)        the value for the scale at hand
    batches(tokens_per_step)      (x, y, progress) until the budget is spent: the loader is the clock
    fake_batch(rows)              (x, y) of random tokens, off the clock, to warm up with
    log(step=..., loss=..., ...)  a line of numbers, shown and never judged
    save_checkpoint(model, config)

Run as a script it prepares a corpus: `python prepare.py --corpus python`.

Inside a trial the harness sets AUTORESEARCH_SCALE, _BUDGET, _SEED, _DEVICE, _OUT and _FEED: the descriptor of
a socket to the feeder, which owns data and clock (harness/feeder.py). Without them `python train.py` works
alone: it prepares the corpus if need be, starts a feeder of its own, and has the checkpoint scored.
"""

import argparse
import atexit
import errno
import functools
import gc
import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch

# context and val_tokens in tokens; the budget of one training as wall:SECONDS, cpu:SECONDS or steps:N.
SCALES: dict[str, dict[str, Any]] = {
    "gpu": {"context": 2048, "vocab": 8192, "budget": "wall:300", "val_tokens": 2_097_152},
    "cpu": {"context": 256, "vocab": 2048, "budget": "cpu:30", "val_tokens": 98_304},
}
DEFAULT_CORPUS = {"gpu": "climbmix", "cpu": "python"}
LARGEST_STEP = 1 << 22  # tokens
EXIT_OUT_OF_MEMORY, EXIT_DISK_FULL = 77, 78
NO_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
COUNTS = {"training_seconds": "seconds", "tokens": "tokens", "steps": "steps"}  # ours: the feeder's
STARTED = time.monotonic()
HERE = Path(__file__).resolve().parent


def setting(name: str, default: str) -> str:
    """AUTORESEARCH_name of the environment; empty counts as absent."""
    return os.environ.get(f"AUTORESEARCH_{name}") or default


SCALE = setting("SCALE", "") or ("gpu" if torch.cuda.is_available() else "cpu")
if SCALE not in SCALES:
    raise SystemExit(f"AUTORESEARCH_SCALE is {SCALE!r}; there are: {', '.join(SCALES)}")
CONTEXT: int = SCALES[SCALE]["context"]
VOCAB_SIZE: int = SCALES[SCALE]["vocab"]
BUDGET = setting("BUDGET", SCALES[SCALE]["budget"])
SEED = int(setting("SEED", "1"))
DEVICE = setting("DEVICE", "cuda" if SCALE == "gpu" else "cpu")
OUT = Path(setting("OUT", str(HERE / "workspace" / "alone")))
FEED = setting("FEED", "")  # absent: we are alone, and start a feeder of our own
CACHE = Path(setting("CACHE", "~/.cache/autoresearch")).expanduser()
CORPUS = setting("CORPUS", DEFAULT_CORPUS[SCALE])

Value = TypeVar("Value")


def pick(*, gpu: Value, cpu: Value) -> Value:
    """The value for the scale at hand."""
    return gpu if SCALE == "gpu" else cpu


# --- data and clock -----------------------------------------------------------------------------------------


class Feed:
    """Our end of the socket to the feeder. The protocol is described in harness/feeder.py."""

    REQUEST, REPLY = struct.Struct("<Q"), struct.Struct("<IIQd")
    BATCH, END = 0, 1

    def __init__(self, feeder: socket.socket) -> None:
        self._feeder = feeder
        self._memory: mmap.mmap | None = None

    def next(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """The next batch of so many tokens, or None when the budget is spent."""
        status, rows, offset, progress = self._ask(tokens)
        if status == self.END:
            return None
        if status != self.BATCH or self._memory is None:
            raise ValueError(f"the feeder refused a step of {tokens:,} tokens")
        flat = np.frombuffer(self._memory, "<u2", rows * (CONTEXT + 1), offset).reshape(rows, CONTEXT + 1)
        x, y = (torch.from_numpy(part.astype(np.int64)) for part in (flat[:, :-1], flat[:, 1:]))
        return x, y, progress

    def _ask(self, tokens: int) -> tuple[int, int, int, float]:
        try:
            self._feeder.sendall(self.REQUEST.pack(tokens))
            reply, descriptors, _, _ = socket.recv_fds(self._feeder, self.REPLY.size, 1)
        except OSError as error:
            raise ConnectionError("the feeder is gone") from error
        if len(reply) < self.REPLY.size:
            raise ConnectionError("the feeder is gone")
        for descriptor in descriptors:  # it comes with the first batch, and is read-only for us
            self._memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
            os.close(descriptor)
        status, rows, offset, progress = self.REPLY.unpack(reply)
        return status, rows, offset, progress


def prepared(name: str, vocab: int, rebuild: bool = False, mirror: str | None = None) -> Any:
    """The corpus, prepared if it is not yet there."""
    from harness import corpora
    from harness.errors import HarnessError

    try:
        found = None if rebuild else corpora.find(name, vocab, CACHE)
        return found or corpora.prepare(name, vocab, CACHE, rebuild=rebuild, mirror=mirror)
    except HarnessError as error:
        raise SystemExit(f"error: {error}") from None


@functools.cache
def feed() -> Feed:
    """The feeder of this process: the harness's, or one of our own."""
    return Feed(socket.socket(fileno=int(FEED)) if FEED else start_feeder())


def start_feeder() -> socket.socket:
    """Without the harness: prepare the corpus if need be and start a feeder. Returns our end of its socket."""
    corpus = prepared(CORPUS, VOCAB_SIZE)
    ours, theirs = socket.socketpair()
    orders = {
        "shards": [str(path) for path in corpus.shards("train")],
        "context": CONTEXT, "seed": SEED, "budget": BUDGET,
        "root": os.getpid(), "count_root": True, "socket": theirs.fileno(),
    }  # fmt: skip
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "log.jsonl").unlink(missing_ok=True)
    with theirs, (OUT / "feeder.jsonl").open("w") as said:
        # Its standard input is a pipe that closes when we end, and then it ends too. In a session of its own, it
        # does not hear the interrupt key.
        feeder = subprocess.Popen(
            [sys.executable, "-m", "harness.feeder", json.dumps(orders)],
            cwd=HERE, stdin=subprocess.PIPE, stdout=said, pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
    atexit.register(feeder.communicate)
    return ours


def batches(tokens_per_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Yield (x, y, progress), one OPTIMIZER step each, until the budget is spent.

    x and y are int64 [tokens_per_step // CONTEXT, CONTEXT] on the CPU, y the token after each of x; split them
    into micro-batches as memory allows. The first batch starts the clock. progress is the share of the budget
    that is spent, from 0 to 1: drive every schedule with it. Called again with another size, it goes on.
    """
    if not 0 < tokens_per_step <= LARGEST_STEP or tokens_per_step % CONTEXT:
        raise ValueError(
            f"batches({tokens_per_step!r}): tokens a step are a positive multiple of CONTEXT, {CONTEXT}, and at "
            f"most {LARGEST_STEP:,}"
        )
    return iter(lambda: feed().next(tokens_per_step), None)


def fake_batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random (x, y), int64 [rows, CONTEXT] on the CPU: off the clock, and torch's random state stays as it is."""
    own = torch.Generator().manual_seed(SEED)
    both = torch.randint(VOCAB_SIZE, (rows, CONTEXT + 1), generator=own)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


# --- what comes out ---------------------------------------------------------------------------------------


def log(**numbers: float) -> None:
    """Append one line of numbers to log.jsonl: shown live as *claimed*, never judged."""
    OUT.mkdir(parents=True, exist_ok=True)
    plain = {name: value if isinstance(value, int) else float(value) for name, value in numbers.items()}
    with (OUT / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")
    if not FEED:
        print("  ".join(f"{name} {value:.6g}" for name, value in plain.items()), flush=True)


def save_checkpoint(model: torch.nn.Module, config: Mapping[str, object]) -> None:
    """Write OUT/model.safetensors and OUT/config.json, each whole or not at all. Alone: have it scored.

    `config` is a flat dict with all that `build_model` needs. Of a compiled module the inner one is saved; of
    tensors that are tied, one, with the names of the others in the file's metadata under `aliases`.
    """
    text = json.dumps(dict(config), indent=1)
    OUT.mkdir(parents=True, exist_ok=True)
    write_tensors(model, OUT / "model.safetensors")
    write_text(OUT / "config.json", text)
    if FEED:
        gc.freeze()  # what is left to do is to end, and to collect all of torch for that would take a second
    else:
        score_alone()


def write_tensors(model: torch.nn.Module, path: Path) -> None:
    """Save a module's state atomically, as safetensors."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for long_name, tensor in model.state_dict().items():
        name = long_name.replace("_orig_mod.", "")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        # A copy of its own for each: views into one storage are refused.
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata={"aliases": json.dumps(aliases)})
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def score_alone() -> None:
    """Leave beside the checkpoint what the scorer needs, and run it: it prints the summary block."""
    lines = (OUT / "feeder.jsonl").read_text().splitlines() if (OUT / "feeder.jsonl").is_file() else []
    fed = json.loads(lines[-1]) if lines else {}
    facts = {"corpus": CORPUS, "scale": SCALE, "device": DEVICE, "budget": BUDGET, "seed": SEED}
    facts |= {name: fed.get(key, 0) for name, key in COUNTS.items()}
    facts |= {"total_seconds": round(time.monotonic() - STARTED, 2)}
    write_text(OUT / "trial.json", json.dumps(facts, indent=1))
    shutil.copyfile(__file__, OUT / "prepare.py")
    if source := getattr(sys.modules["__main__"], "__file__", None):
        shutil.copyfile(source, OUT / "train.py")
    # It ran as you already, outside any sandbox: to score it so, where there is none, adds no danger.
    command = [sys.executable, "-m", "harness.score", "--allow-unsandboxed", str(OUT.resolve())]
    scorer = subprocess.run(command, cwd=HERE)
    if scorer.returncode:
        print(f"The checkpoint is saved in {OUT}, but was not scored (see above).", file=sys.stderr)
        print(f"  Try again: python -m harness.score {OUT}", file=sys.stderr)


def exit_by_cause(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the error as always, and tell the harness by the exit code if memory or disk ran out."""
    sys.__excepthook__(kind, error, trace)
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in NO_MEMORY):
        raise SystemExit(EXIT_OUT_OF_MEMORY)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "no space left on device" in text:
        raise SystemExit(EXIT_DISK_FULL)


if FEED:
    sys.excepthook = exit_by_cause


# --- as a script ------------------------------------------------------------------------------------------


def main() -> None:
    """Prepare a corpus: text, tokenizer and token shards, once."""
    parser = argparse.ArgumentParser(description="Prepare a corpus for training and scoring; then it is frozen.")
    parser.add_argument("--corpus", help="climbmix, python, or the path of a file or folder (default: the scale's)")
    parser.add_argument("--scale", choices=list(SCALES), default=SCALE, help="it sets the vocabulary (%(default)s)")
    parser.add_argument("--rebuild", action="store_true", help="make it again, though it is there")
    parser.add_argument("--mirror", metavar="URL", help="where a corpus that is downloaded comes from")
    asked = parser.parse_args()
    name, vocab = asked.corpus or DEFAULT_CORPUS[asked.scale], SCALES[asked.scale]["vocab"]
    corpus = prepared(name, vocab, asked.rebuild, asked.mirror)
    print(f"Ready: {corpus.identity} in {corpus.folder}")


if __name__ == "__main__":
    main()
