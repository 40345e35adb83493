"""The arithmetic of the score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.bits import Tally, losses, losses_on_device, widen


def test_a_uniform_model_needs_the_logarithm_of_the_vocabulary() -> None:
    tally = Tally(np.full(16, 2, np.int64))
    tally.add(losses(np.zeros((5, 16), np.float32), np.arange(5)), np.arange(5))
    assert tally.bits_per_byte == pytest.approx(math.log2(16) / 2)


def test_targets_without_bytes_count_for_neither_side() -> None:
    tally = Tally(np.array([0, 1], np.int64))
    tally.add(np.array([100.0, 2.0], np.float32), np.array([0, 1]))
    assert (tally.nats, tally.bytes, tally.tokens) == (2.0, 1, 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 80))
def test_losses_agree_with_cross_entropy(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((7, 33)) * size).astype(np.float32)
    targets = rng.integers(0, 33, 7)
    wanted = losses_on_device(torch.from_numpy(logits.copy()), targets, "cpu")
    np.testing.assert_allclose(losses(logits, targets), wanted, rtol=1e-4, atol=1e-5)


def test_huge_logits_overflow_nothing() -> None:
    logits = np.array([[3e38, -3e38, 0.0]], np.float32)
    assert losses(logits, np.array([0])).tolist() == [0.0]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_logits_that_are_not_finite_give_a_loss_that_is_not(poison: float) -> None:
    logits = np.zeros((1, 4), np.float32)
    logits[0, 2] = poison
    assert not np.isfinite(losses(logits, np.array([1]))).any()


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e30])
def test_an_offset_common_to_all_logits_changes_no_loss(offset: float) -> None:
    logits = np.full((3, 2048), offset, np.float32)
    np.testing.assert_allclose(losses(logits, np.arange(3)), math.log(2048), rtol=1e-6)


def test_bfloat16_is_widened_exactly() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    raw = values.view(torch.uint16).numpy()
    assert np.array_equal(widen(raw), values.float().numpy())
