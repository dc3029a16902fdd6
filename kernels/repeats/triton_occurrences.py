"""The correction of the softmax where every occurrence has a weight, on the GPU: one launch forward."""

from typing import Any

import torch
from torch import Tensor

from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import CLOCK, event_runs
from recsys.kernels.repeats.triton_occurrence_backward import occurrence_keys_kernel, occurrence_rows_kernel
from recsys.kernels.repeats.triton_occurrence_forward import occurrence_forward_kernel
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

__all__ = ["PASSES", "occurrence_correction"]

RUN_EVENTS = 32
"""Sorted events of a block, the same in all kernels: a run's sum is kept for the block in which it ends."""


def occurrence_correction(
    hidden: Tensor, keys: Tensor, log_totals: Tensor, weights: Tensor, layout: RepeatLayout, **options: Any
) -> Tensor:
    """Compute the correction of each row; arguments as in the reference."""
    return corrected(PASSES, hidden, keys, log_totals, weights, layout, **options)


def _forward(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, keys, totals, weights, layout, weighing = inputs
    runs = _runs(layout)
    correction, gained = torch.empty_like(totals), torch.empty_like(totals, dtype=torch.float32)
    event_blocks = -(-layout.shape[2] // RUN_EVENTS)
    crossing = torch.empty(len(totals), event_blocks, device=hidden.device)
    config = choose("occurrence_forward", inputs)
    blocks = -(-layout.shape[1] // config.blocks["BLOCK_M"])
    launch(
        occurrence_forward_kernel, programs(inputs, blocks, config), config,
        hidden, keys, totals, weights, layout.event_offsets, layout.row_offsets, layout.items, layout.visible,
        layout.places, layout.targets, runs, *_times(layout), gained, correction, crossing,
        runs.shape[1], blocks, event_blocks, _distances(weights, layout),
        weighing.rate, weighing.own, weighing.even, LEAST, **_constants(inputs),
    )  # fmt: skip
    return correction, gained, crossing, runs


def _backward(
    inputs: Inputs, grad: Tensor, gained: Tensor, crossing: Tensor, runs: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, keys, totals, weights, layout, weighing = inputs
    d_hidden, d_keys, d_totals = torch.empty_like(hidden), torch.empty_like(keys), torch.empty_like(totals)
    event_blocks, count, entries = crossing.shape[1], _distances(weights, layout), len(weights)
    config = choose("occurrence_rows", inputs)
    blocks = -(-layout.shape[1] // config.blocks["BLOCK_M"])
    parts = torch.empty(layout.shape[0] * blocks, entries, device=hidden.device)
    launch(
        occurrence_rows_kernel, programs(inputs, blocks, config), config,
        grad, gained, crossing, hidden, keys, totals, weights, layout.event_offsets, layout.row_offsets,
        layout.items, layout.visible, layout.places, layout.targets, runs, *_times(layout),
        d_hidden, d_totals, parts, runs.shape[1], blocks, event_blocks, count, entries,
        weighing.rate, weighing.own, weighing.even, LEAST,
        LANES=power_of_two(entries), **_constants(inputs),
    )  # fmt: skip
    config = choose("occurrence_keys", inputs)
    launch(
        occurrence_keys_kernel, programs(inputs, event_blocks, config), config,
        grad, gained, crossing, hidden, keys, totals, weights, layout.event_offsets, layout.row_offsets,
        layout.visible, layout.places, runs, *_times(layout), d_keys, runs.shape[1], event_blocks, count,
        weighing.rate, LEAST, **_constants(inputs),
    )  # fmt: skip
    return d_hidden, d_keys, d_totals, total(parts, weights)


def _runs(layout: RepeatLayout) -> Tensor:
    """(3, N) int32: events sorted by item, heads and tails; made here where the layout was not moved."""
    own = layout.occurrences
    assert own is not None
    return event_runs(own.first, layout.event_offsets) if own.runs is None else own.runs


def _times(layout: RepeatLayout) -> tuple[Tensor | None, Tensor | None]:
    own = layout.occurrences
    assert own is not None
    return own.event_quarters, own.row_quarters


def _distances(weights: Tensor, layout: RepeatLayout) -> int:
    """K, the entries by distance."""
    return len(weights) - CLOCK if _times(layout)[0] is not None else len(weights)


def _constants(inputs: Inputs) -> dict[str, Any]:
    weighing = inputs.weighing
    return {
        "SEES_LATER": weighing.sees_later,
        "POWERED": weighing.rate != 1.0,
        "WIDTH": inputs.hidden.shape[1],
        "BLOCK_N": RUN_EVENTS,
    }


PASSES = Passes(_forward, _backward)
"""Take the logs of weights; the temperature divides the log of their sum."""
