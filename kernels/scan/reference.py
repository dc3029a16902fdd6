"""The selective scan in plain PyTorch: the definition that the compiled kernels are tested against.

Source: Gu and Dao 2023 (arXiv:2312.00752), equation 2 with algorithm 2, discretized as their code does:
exp(delta A) for A and delta B (Euler) for B. Shapes are lower-case here because A, B, C, D are the paper's.
Legend: n events, b sequences, e channels (d_inner), s states per channel (d_state).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["selective_scan", "selective_scan_step"]


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
) -> tuple[Tensor, Tensor]:
    """Return y (n, e) and the state (b, e, s) after each sequence, in the dtype of `u`.

    All sequences advance together, one event at a time: the longest come first, so that those still running
    at time t are the first rows of the state.
    """
    lengths = offsets.long().diff()
    order = lengths.argsort(descending=True, stable=True)
    starts, lengths = offsets[:-1].long()[order], lengths[order]
    h = u.new_zeros(len(order), *A.shape) if initial_state is None else initial_state[order]

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
            u[row],
            delta[row],
            A,
            B[row],
            C[row],
            D,
            None if z is None else z[row],
            delta_bias,
            delta_softplus,
        )
        rows.append(row)
        outputs.append(y)
    finals.append(h)

    y = torch.cat(outputs)[torch.cat(rows).argsort()]
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
