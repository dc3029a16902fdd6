"""The selective scan by mamba-ssm's CUDA kernels (https://github.com/state-spaces/mamba), padded for them.

For comparison: sequences become rows of one rectangle as long as the longest, which its kernels require.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.scan import reference

__all__ = ["selective_scan"]

# Raw step of a padded event, of which softplus makes exactly 0, with a slope of 0; float16 holds it.
_NEVER = -1e4


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """Scan; arguments and results as in `reference.selective_scan`, the state empty unless asked for.

    Waits for the device, to know the longest sequence.

    Raises:
        ArgumentError: an initial state is given, or a state is wanted while gradients are recorded.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    inputs = (u, delta, A, B, C, D, z, delta_bias)
    if initial_state is not None:
        raise ArgumentError(
            "selective_scan: backend 'mamba-ssm' takes no initial_state, use backend='triton'"
        )
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    if trained and return_state:
        raise ArgumentError(
            "selective_scan: backend 'mamba-ssm' has no gradient through the state: use backend='triton', "
            "or torch.no_grad"
        )
    if u.shape[0] == 0:
        y, state = reference.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state
        )
        return y, state.float()
    dtype = u.dtype
    if not delta_softplus and delta_bias is not None:
        # The bias would turn a padded step of 0 into itself: added here instead, in single precision.
        delta, delta_bias = delta.float() + delta_bias.float(), None
        u, B, C, z = (None if x is None else x.float() for x in (u, B, C, z))  # type: ignore[assignment]

    lengths = offsets.long().diff()
    longest = int(lengths.max())
    starts = torch.arange(len(lengths), device=u.device) * longest - offsets[:-1].long()
    rows = torch.arange(u.shape[0], device=u.device)
    rows = rows + starts.repeat_interleave(lengths, output_size=u.shape[0])

    def pad(x: Tensor, value: float = 0.0) -> Tensor:
        """(N, width) to (B, width, longest), in the type of u, as the kernels demand."""
        rectangle = u.new_full((len(lengths) * longest, x.shape[1]), value)
        rectangle = rectangle.index_copy(0, rows, x.to(u.dtype))
        return rectangle.view(len(lengths), longest, x.shape[1]).transpose(1, 2).contiguous()

    def single(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.float().contiguous()

    result: Any = selective_scan_fn(
        pad(u),
        pad(delta, _NEVER if delta_softplus else 0.0),
        single(A),
        pad(B),
        pad(C),
        single(D),
        None if z is None else pad(z),
        single(delta_bias),
        delta_softplus,
        return_state,
    )
    y, state = result if return_state else (result, A.new_empty(0))
    y = y.to(dtype)
    return y.transpose(1, 2).reshape(-1, u.shape[1])[rows], state.float()
