"""The selective scan in plain PyTorch: the definition that the compiled kernels are tested against.

Source: Gu and Dao 2023 (arXiv:2312.00752), equation 2 with algorithm 2, discretized as their code does:
exp(delta A) for A and delta B (Euler) for B. Shapes are lower-case here because A, B, C, D are the paper's.
Legend: n events, b sequences, e channels (d_inner), s states per channel (d_state).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.kernels.scan.call import ScanCall
from recsys.kernels.shared.arguments import check_offsets_values

__all__ = ["selective_scan", "selective_scan_step"]


def selective_scan(call: ScanCall) -> tuple[Tensor, Tensor]:
    """Return y (n, e), in the dtype of `u`, and the state (b, e, s) after each sequence.

    All sequences advance together, one event at a time: the longest come first, so that those still running
    at time t are the first rows of the state. Half precision is computed in float32.
    """
    if not call.u.is_cuda and not torch.compiler.is_compiling():
        check_offsets_values("selective_scan", call.offsets, call.u.shape[0])
    x = call.widened()
    lengths = x.offsets.long().diff()
    order = lengths.argsort(descending=True, stable=True)
    starts, lengths = x.offsets[:-1].long()[order], lengths[order]
    h = x.u.new_zeros(len(order), *x.A.shape) if x.initial_state is None else x.initial_state[order]

    rows: list[Tensor] = []
    outputs: list[Tensor] = []
    finals: list[Tensor] = []
    longest = int(lengths[0]) if len(lengths) else 0
    for t in range(max(longest, 1)):  # once without events too: y then still depends on every input
        running = int((lengths > t).sum())
        finals.append(h[running:])
        row = starts[:running] + t
        y, h = selective_scan_step(
            h[:running],
            x.u[row],
            x.delta[row],
            x.A,
            x.B[row],
            x.C[row],
            x.D,
            None if x.z is None else x.z[row],
            x.delta_bias,
            x.delta_softplus,
        )
        rows.append(row)
        outputs.append(y)
    finals.append(h)

    y = torch.cat(outputs)[torch.cat(rows).argsort()].to(call.u.dtype)
    return y, torch.cat(finals[::-1])[order.argsort()]


def selective_scan_step(
    h: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Advance each of b states (b, e, s) by one event: u, delta, z (b, e), B and C (b, s)."""
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = F.softplus(delta, threshold=20)
    h = torch.exp(delta[..., None] * A) * h + (delta * u)[..., None] * B[:, None, :]
    y = (h @ C[..., None]).squeeze(-1)
    if D is not None:
        y = y + D * u
    if z is not None:
        y = y * F.silu(z)
    return y, h
