"""Launches of the scan's GPU kernels on small tensors, one for each variant that ships."""

import torch

from recsys.kernels.scan.schedule import LONG, ScanSchedule
from recsys.kernels.scan.triton import backward, forward

__all__ = ["record_all"]

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_STATES = (16, 32, 64)


def record_all() -> None:
    """Call the launchers for every type, state size and combination of arguments that the encoders use.

    Training of Mamba (D, z and bias, long sequences too) in every type and size, and in bfloat16 at the
    smallest size its inference, a bare scan, and streaming from states to states; a padded d_state.
    """
    for dtype in _DTYPES:
        for states in _STATES:
            _call(dtype, states, trained=True)
    small = torch.bfloat16, 16
    _call(*small)
    _call(*small, state=True)
    _call(*small, trained=True, state=True)
    _call(*small, trained=True, options=False, softplus=False)
    _call(torch.bfloat16, 12, trained=True)


def _call(
    dtype: torch.dtype,
    states: int,
    *,
    trained: bool = False,
    state: bool = False,
    options: bool = True,
    softplus: bool = True,
) -> None:
    """Run forward, and backward where it is trained, on two sequences, one of them long."""
    lengths, channels = (3, LONG + 1), 64
    events = sum(lengths)
    # As in the encoder: z is half of a projection, B and C lie behind a delta of rank 4 in another.
    z = torch.zeros(events, 2 * channels, dtype=dtype)[:, channels:]
    _, B, C = torch.zeros(events, 4 + 2 * states, dtype=dtype).split((4, states, states), dim=1)
    schedule = ScanSchedule.from_lengths(lengths)
    initial = torch.zeros(len(lengths), channels, states) if state else None
    inputs = (
        torch.zeros(events, channels, dtype=dtype),
        torch.zeros(events, channels, dtype=dtype),
        torch.zeros(channels, states),
        B,
        C,
        torch.zeros(channels) if options else None,
        z if options else None,
        torch.zeros(channels) if options else None,
        initial,
        torch.tensor([0, *lengths]).cumsum(0).int(),
        softplus,
        schedule.tasks,
        schedule.bounds,
        schedule.chunks,
        schedule.chains,
    )
    y, final, kept = forward(*inputs, state, trained)
    if trained:
        backward(torch.zeros_like(y), final if state else None, kept, *inputs)
