"""Launches of the attention kernels that ship: types, head sizes, masks, dropout and bias.

Every head size and both widths of type in the plain causal form; each flag with the sizes that models use.
"""

import itertools

import torch
from torch import Tensor

from recsys.kernels.attention import triton
from recsys.kernels.attention.schedule import AttentionSchedule

__all__ = ["record_all"]

HEAD_SIZES = (16, 32, 64, 128)
_LENGTHS = (65, 33, 17, 1)
"""A long sequence, and one of each short class."""


def record_all() -> None:
    """Call the launchers once for each case; for use inside `record_launches`."""
    for dtype, head in itertools.product((torch.float32, torch.bfloat16), HEAD_SIZES):
        _record(dtype, head)
    _record(torch.float16, 64)
    _record(torch.bfloat16, 32, causal=False)
    _record(torch.bfloat16, 32, dropping=True, timed=True, placed=True)
    _record(torch.float32, 64, causal=False, dropping=True, timed=True, placed=True)


def _record(
    dtype: torch.dtype,
    head: int,
    *,
    causal: bool = True,
    dropping: bool = False,
    timed: bool = False,
    placed: bool = False,
) -> None:
    events, heads = sum(_LENGTHS), 2
    q, k, v = torch.zeros(events, 3, heads, head, dtype=dtype).unbind(1)  # parts of a projection
    schedule = AttentionSchedule.from_lengths(torch.tensor(_LENGTHS).numpy())
    offsets = torch.tensor([0, *itertools.accumulate(_LENGTHS)], dtype=torch.int32)
    inputs: tuple[Tensor | None, ...] = (
        q,
        k,
        v,
        offsets,
        schedule.tasks,
        schedule.counts,
        torch.zeros((), dtype=torch.int64) if dropping else None,
        torch.zeros(heads, 64) if timed else None,
        torch.zeros(events, dtype=torch.int64) if timed else None,
        torch.zeros(heads, 200) if placed else None,
    )
    options = (causal, 0.25, 0.1 if dropping else 0.0)
    out, log_sums = triton.forward(*inputs, *options)
    triton.backward(out, *inputs, out, log_sums, *options)
