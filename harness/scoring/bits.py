"""From logits to bits per byte: the arithmetic of the score, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Tally:
    """Nats and bytes so far. Targets of zero bytes (the document separator) count for neither."""

    token_bytes: NDArray[np.int64]
    """Bytes of each token's raw bytes, [vocab]."""
    nats: float = 0.0
    bytes: int = 0
    tokens: int = 0

    def add(self, losses: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
        """`losses` in nats and `targets`, both [n]."""
        lengths = self.token_bytes[targets]
        counted = lengths > 0
        self.nats += float(losses[counted].sum(dtype=np.float64))
        self.bytes += int(lengths.sum())
        self.tokens += int(counted.sum())

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def widen(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16, given as its bits, to float32: exact, since bfloat16 is the upper half of a float32."""
    return (raw.astype(np.uint32) << 16).view(np.float32)


def losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cross-entropy of each row in nats by fp32 log-softmax. `logits` [n, vocab] is overwritten; returns [n].

    Logits that are not finite give a loss that is not finite; the caller looks for it.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        # First of all the offset: added to a sum of exponentials, a large one would swallow its logarithm.
        logits -= logits.max(axis=1)[:, None]
        chosen = logits[np.arange(len(targets)), targets]
        np.exp(logits, out=logits)
        result: NDArray[np.float32] = np.log(logits.sum(axis=1)) - chosen
    return result


def losses_on_device(logits: Any, targets: NDArray[np.int64], device: str) -> NDArray[np.float32]:
    """The same as `losses` by torch on a GPU. `logits` is a float32 or bfloat16 tensor [n, vocab] of the host."""
    import torch

    wide = logits.to(device, copy=True).float()  # a private copy, whoever else can write to the original
    chosen = torch.from_numpy(targets).to(device)
    result: NDArray[np.float32] = torch.nn.functional.cross_entropy(wide, chosen, reduction="none").cpu().numpy()
    return result
