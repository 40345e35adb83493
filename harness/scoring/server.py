"""The model server: untrusted, since it runs `build_model` and `forward` of the code under test.

Run as a script in a folder of its own, empty at first: torch is imported while others still work. At `START` the
folder holds train.py, prepare.py and the checkpoint. It imports nothing of the harness but the protocol. It gets token
ids and gives logits; it never sees a target, and nothing it sends is unpickled, parsed or printed to a researcher.
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open


def load(folder: Path, device: str) -> torch.nn.Module:
    """The model of a checkpoint, in eval mode on its device."""
    sys.path.insert(0, str(folder))  # for `import prepare`
    spec = importlib.util.spec_from_file_location("train", folder / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    config = json.loads((folder / "config.json").read_text())
    model: torch.nn.Module = module.build_model(config)
    with safe_open(folder / "model.safetensors", "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    # Tied tensors are saved once; the other names point to it.
    state.update({alias: state[name] for alias, name in aliases.items()})
    model.load_state_dict(state)
    return model.eval().to(device)


def serve(sock: socket.socket, model: torch.nn.Module, device: str, wire: Any) -> None:
    """Answer until the scorer hangs up."""
    sock.sendall(wire.READY.pack(wire.MAGIC))
    hello, fds, _, _ = socket.recv_fds(sock, wire.HELLO.size, 2)
    _, most, context, vocab = wire.HELLO.unpack(hello)
    tokens = np.frombuffer(mmap.mmap(fds[0], most * context * 2, prot=mmap.PROT_READ), np.uint16)
    logits = mmap.mmap(fds[1], most * context * vocab * 4)
    while True:
        try:
            _, number, rows = wire.REQUEST.unpack(wire.receive(sock, wire.REQUEST.size))
        except EOFError:
            return
        batch = torch.from_numpy(tokens[: rows * context].astype(np.int64)).view(rows, context)
        kind, shape = write(model(batch.to(device)), (rows, context, vocab), logits, wire)
        sock.sendall(wire.REPLY.pack(wire.MAGIC, number, kind, *shape))


def write(answer: Any, wanted: tuple[int, ...], logits: mmap.mmap, wire: Any) -> tuple[int, tuple[int, ...]]:
    """Put an answer of the wanted shape into the buffer, in one copy; its type and shape, for the reply."""
    if not isinstance(answer, torch.Tensor):
        return wire.OTHER, wanted
    kind = {torch.float32: wire.FLOAT32, torch.bfloat16: wire.BFLOAT16}.get(answer.dtype, wire.OTHER)
    shape = tuple(answer.shape)
    if kind != wire.OTHER and shape == wanted:
        torch.frombuffer(logits, dtype=answer.dtype, count=answer.numel()).view(shape).copy_(answer)
    return kind, (*shape, 0, 0, 0)[:3] if len(shape) <= 3 else (0, 0, 0)


def main() -> None:
    """One JSON argument: descriptor of the socket, device, threads, and the path of the protocol's file."""
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    source = importlib.util.spec_from_file_location("wire", spec["wire"])
    assert source is not None
    assert source.loader is not None
    wire = importlib.util.module_from_spec(source)
    source.loader.exec_module(wire)
    sock = socket.socket(fileno=spec["socket"])
    try:
        wire.receive(sock, wire.START.size)
    except EOFError:
        return  # there is nothing to score
    model = load(Path.cwd(), spec["device"])
    with torch.inference_mode():
        serve(sock, model, spec["device"], wire)


if __name__ == "__main__":
    main()
