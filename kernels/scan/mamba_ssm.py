"""The selective scan by mamba-ssm's CUDA kernels (https://github.com/state-spaces/mamba), padded for them.

For comparison: sequences become rows of one rectangle as long as the longest, which its kernels require.
"""

from typing import Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.scan import reference
from recsys.kernels.scan.call import ScanCall

__all__ = ["selective_scan"]

# Raw step of a padded event, of which softplus makes exactly 0, with a slope of 0; float16 holds it.
_NEVER = -1e4


def selective_scan(call: ScanCall) -> tuple[Tensor, Tensor]:
    """Scan; the final state is empty unless asked for.

    Waits for the device, to know the longest sequence.

    Raises:
        ArgumentError: an initial state is given, or a state is wanted while gradients are recorded.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, A, B, C, D, z, delta_bias = (
        call.u, call.delta, call.A, call.B, call.C, call.D, call.z, call.delta_bias
    )  # fmt: skip
    offsets, delta_softplus, return_state = call.offsets, call.delta_softplus, call.return_state
    if call.initial_state is not None:
        raise ArgumentError(
            "selective_scan: backend 'mamba-ssm' takes no initial_state, use backend='triton'"
        )
    if call.trained and return_state:
        raise ArgumentError(
            "selective_scan: backend 'mamba-ssm' has no gradient through the state: use backend='triton', "
            "or torch.no_grad"
        )
    if u.shape[0] == 0:
        y, state = reference.selective_scan(call)
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
