"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import itertools
from dataclasses import replace

import numpy as np
import torch

from recsys.kernels.repeats import triton, triton_occurrences
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import CLOCK, Occurrences
from recsys.kernels.repeats.triton_operators import Inputs, Passes, Weighing

__all__ = ["record_all"]

_EVENTS, _BUCKETS = 16, 8


def record_all() -> None:
    """Each width of the table; causal and not, at a temperature or without, with a clock or without."""
    lengths, visible = np.array([_EVENTS]), np.ones(_EVENTS, dtype=bool)
    rows = np.zeros(_EVENTS, dtype=np.int64)
    items = np.arange(_EVENTS)
    plain = RepeatLayout.of(items, lengths, visible, rows, items + 1, items)
    times = torch.zeros(_EVENTS, dtype=torch.int64)
    untimed = replace(plain, occurrences=Occurrences.of(items, lengths, visible))
    timed = replace(plain, occurrences=Occurrences.of(items, lengths, visible, times, times))
    for width in (16, 32, 64, 128, 256):
        _record(triton.PASSES, width, _BUCKETS, plain, False)
        _record(triton_occurrences.PASSES, width, _BUCKETS + CLOCK, timed, False)
    _record(triton.PASSES, 64, _BUCKETS, plain, True)
    _record(triton.PASSES, 64, _BUCKETS, plain, False, dtype=torch.bfloat16)
    for clocked, later in itertools.product((False, True), (False, True)):
        layout, entries = (timed, _BUCKETS + CLOCK) if clocked else (untimed, _BUCKETS)
        _record(triton_occurrences.PASSES, 64, entries, layout, later, rate=0.5)


def _record(
    passes: Passes,
    width: int,
    entries: int,
    layout: RepeatLayout,
    sees_later: bool,
    *,
    rate: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    states, totals = torch.zeros(_EVENTS, width, dtype=dtype), torch.zeros(_EVENTS, dtype=dtype)
    weighing = Weighing(sees_later, rate, 0.9, 0.1)
    inputs = Inputs(states, states, totals, torch.zeros(entries, dtype=dtype), layout, weighing)
    correction, *kept = passes.forward(inputs)
    passes.backward(inputs, correction, *kept)
