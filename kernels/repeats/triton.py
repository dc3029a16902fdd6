"""The correction of the softmax for repeats on the GPU: one launch forward, no (B, T, L) array."""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.triton_backward import keys_kernel, rows_kernel
from recsys.kernels.repeats.triton_forward import forward_kernel
from recsys.kernels.repeats.triton_operators import (
    LEAST,
    Inputs,
    Passes,
    choose,
    corrected,
    power_of_two,
    programs,
    total,
)
from recsys.kernels.shared.launching import launch

__all__ = ["PASSES", "repeat_correction"]


def repeat_correction(
    hidden: Tensor, keys: Tensor, log_totals: Tensor, bias: Tensor, layout: RepeatLayout, **options: Any
) -> Tensor:
    """Compute the correction of each row; arguments as in `reference.repeat_correction`."""
    return corrected(PASSES, hidden, keys, log_totals, bias / options["temperature"], layout, **options)


def _forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    hidden, keys, totals, biases, layout, weighing = inputs
    correction, gained = torch.empty_like(totals), torch.empty_like(totals, dtype=torch.float32)
    added = biases.float()
    config = choose("forward", inputs)
    blocks = -(-layout.shape[1] // config.blocks["BLOCK_M"])
    launch(
        forward_kernel, programs(inputs, blocks, config), config,
        hidden, keys, totals, added, torch.expm1(added), *_layout(layout), gained, correction,
        blocks, len(added) - 1, weighing.rate, weighing.own, weighing.even, LEAST,
        SEES_LATER=weighing.sees_later, WIDTH=hidden.shape[1],
    )  # fmt: skip
    return correction, gained


def _backward(inputs: Inputs, grad: Tensor, gained: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, keys, totals, biases, layout, weighing = inputs
    d_hidden, d_keys, d_totals = torch.empty_like(hidden), torch.empty_like(keys), torch.empty_like(totals)
    growth, buckets = torch.expm1(biases.float()), len(biases)
    constants = {"SEES_LATER": weighing.sees_later, "WIDTH": hidden.shape[1]}
    config = choose("rows", inputs)
    blocks = -(-layout.shape[1] // config.blocks["BLOCK_M"])
    parts = torch.empty(layout.shape[0] * blocks, buckets, device=hidden.device)
    launch(
        rows_kernel, programs(inputs, blocks, config), config,
        grad, gained, hidden, keys, totals, growth, *_layout(layout), d_hidden, d_totals, parts,
        blocks, buckets, weighing.rate, weighing.own, weighing.even, LEAST,
        LANES=power_of_two(buckets), **constants,
    )  # fmt: skip
    config = choose("keys", inputs)
    blocks = -(-layout.shape[2] // config.blocks["BLOCK_N"])
    launch(
        keys_kernel, programs(inputs, blocks, config), config,
        grad, gained, hidden, keys, totals, growth, layout.event_offsets, layout.row_offsets,
        layout.visible, layout.following, layout.preceding, layout.places, d_keys,
        blocks, buckets, weighing.rate, LEAST, **constants,
    )  # fmt: skip
    return d_hidden, d_keys, d_totals, total(parts, biases)


def _layout(layout: RepeatLayout) -> tuple[Tensor, ...]:
    return (
        layout.event_offsets,
        layout.row_offsets,
        layout.items,
        layout.visible,
        layout.following,
        layout.preceding,
        layout.places,
        layout.targets,
    )


PASSES = Passes(_forward, _backward)
"""Take the bias at the temperature."""
