"""The block of a trial in plain text: `---`, then `key: value`, with the field names of karpathy/autoresearch."""

from __future__ import annotations

from harness.types import Result


def block(result: Result) -> str:
    """What is known of a trial, a line each; a field without a value is left out."""
    fields = {
        "val_bpb": _number(result.val_bpb, "{:.6f}"),
        "training_seconds": _number(result.training_seconds, "{:.1f}"),
        "total_seconds": _number(result.total_seconds, "{:.1f}"),
        "peak_vram_mb": _number(result.peak_memory_mb, "{:.1f}"),
        "mfu_percent": _number(result.claimed_mfu, "{:.2f}"),
        "total_tokens_M": _number(result.tokens, "{:.1f}", 1e-6),
        "num_steps": _number(result.steps, "{:.0f}"),
        "num_params_M": _number(result.params, "{:.1f}", 1e-6),
    }
    lines = [f"{name + ':':<18}{text}" for name, text in fields.items() if text]
    if not result.ok:
        lines.append(f"{'outcome:':<18}{result.outcome}: {result.reason}")
    return "\n".join(["---", *lines, ""])


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else form.format(value * factor)
