"""Learned scores that attention adds by time gap and by relative position; one set per layer.

HSTU's relative bias (Zhai et al. 2024, arXiv:2402.17152) with the buckets of `recsys.kernels.attention.bias`.
"""

import torch
from torch import Tensor, nn

from recsys.errors import ArgumentError
from recsys.kernels.attention import AttentionBias, added_scores


class BiasTables(nn.Module):
    """Tables of one attention layer, zero at the start, so that training decides whether they matter.

    Args:
        n_heads: H.
        time_bias: T, time buckets per head; 0 for none.
        relative_positions: R, places per head; 0 for none.
        causal: whether attention is.
    """

    def __init__(self, n_heads: int, time_bias: int, relative_positions: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.time_table: nn.Parameter | None = None
        self.position_table: nn.Parameter | None = None
        if time_bias:
            self.time_table = nn.Parameter(torch.zeros(n_heads, time_bias))
        if relative_positions:
            self.position_table = nn.Parameter(torch.zeros(n_heads, relative_positions))

    def packed(self, timestamps: Tensor | None) -> AttentionBias | None:
        """The bias of whole sequences whose events have these (N,) times; None without tables."""
        if self.time_table is None and self.position_table is None:
            return None
        return AttentionBias(
            self.time_table, None if self.time_table is None else timestamps, self.position_table
        )

    def added(self, timestamps: Tensor | None, places: Tensor, width: int) -> Tensor | None:
        """(n, H, L) scores added for the newest event of each of n users; None without tables.

        Args:
            timestamps: (n, L) of the window, the newest event's included; needed with a time table.
            places: (n,) index of the newest event in the window.
            width: L.
        """
        if self.time_table is None and self.position_table is None:
            return None
        gap = None
        if self.time_table is not None and timestamps is not None:
            gap = (timestamps.gather(1, places[:, None]) - timestamps).abs()
        distance = places[:, None] - torch.arange(width, device=places.device)
        found = added_scores(
            self.time_table, self.position_table, gap=gap, distance=distance, causal=self.causal
        )
        return found.transpose(0, 1)


def require_times(timestamps: Tensor | None, time_bias: int) -> None:
    """Refuse events without times where a time bias is to be looked up.

    Raises:
        ArgumentError: see above; names the remedy.
    """
    if time_bias and timestamps is None:
        raise ArgumentError(
            f"encoder.time_bias = {time_bias} needs the time of every event and these have none: pass "
            "timestamps, or train with encoder.time_bias = 0"
        )
