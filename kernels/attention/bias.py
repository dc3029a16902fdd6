"""Additive attention bias from time gaps and relative positions; never an L x L tensor in memory.

For query i and key j of a sequence and head h:

    score = scale * q_i . k_j + time_table[h, bucket(|t_i - t_j|)] + position_table[h, position(i - j)]

Buckets are found with integers alone, so that the CPU, the GPU and this definition agree on every gap,
edges included: a floating logarithm differs by an ulp between libraries, and that flips buckets.
Source: the relative attention bias of HSTU (Zhai et al. 2024, arXiv:2402.17152), and of T5 for positions.

Legend: N events, H heads, T time buckets, R relative positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["MAX_BUCKETS", "MAX_GAP", "AttentionBias", "added_scores", "relative_position", "time_bucket"]

MAX_GAP = 2**31 - 1
"""Seconds (68 years); longer gaps count as this one."""

MAX_BUCKETS = 120
"""Buckets of gaps from 0 to MAX_GAP: four to a doubling."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBias:
    """Tables of additive scores, and the times that the time table is looked up with.

    Attributes:
        time_table: (H, T) floating, T in 1..MAX_BUCKETS, or None. Gaps beyond bucket T - 1 take the last one.
        timestamps: (N,) int64 unix seconds; needed with `time_table`, and only then.
        position_table: (H, R) floating or None. Causal attention: entry min(i - j, R - 1). Bidirectional: R
            is odd and the entry is min(max(i - j, -m), m) + m with m = (R - 1) / 2.
    """

    time_table: Tensor | None = None
    timestamps: Tensor | None = None
    position_table: Tensor | None = None

    def check(self, q: Tensor, causal: bool) -> None:
        """Refuse tables and times that do not go with q (N, H, Dh).

        Raises:
            ArgumentError: a shape, dtype or device does not fit.
        """
        events, heads = q.shape[:2]
        if self.time_table is None and self.position_table is None:
            raise ArgumentError("jagged_attention: bias has no table, pass bias=None for none")
        if (self.time_table is None) != (self.timestamps is None):
            raise ArgumentError(
                "jagged_attention: bias.time_table and bias.timestamps go together, give both"
            )
        for name, table in (("time_table", self.time_table), ("position_table", self.position_table)):
            if table is None:
                continue
            if table.dim() != 2 or table.shape[0] != heads or table.shape[1] == 0:
                raise ArgumentError(
                    f"jagged_attention: bias.{name} has shape {tuple(table.shape)}, want (H, entries) with "
                    f"H = {heads}"
                )
            if not table.is_floating_point() or table.device != q.device:
                raise ArgumentError(
                    f"jagged_attention: bias.{name} is {table.dtype} on {table.device}, want floating on "
                    f"{q.device} like q"
                )
        if self.time_table is not None and self.time_table.shape[1] > MAX_BUCKETS:
            raise ArgumentError(
                f"jagged_attention: bias.time_table has {self.time_table.shape[1]} buckets, want at most "
                f"{MAX_BUCKETS}"
            )
        times = self.timestamps
        if times is not None and (
            times.shape != (events,) or times.dtype != torch.int64 or times.device != q.device
        ):
            raise ArgumentError(
                f"jagged_attention: bias.timestamps is {times.dtype} of shape {tuple(times.shape)} on "
                f"{times.device}, want int64 ({events},) on {q.device}"
            )
        if self.position_table is not None and not causal and self.position_table.shape[1] % 2 == 0:
            raise ArgumentError(
                f"jagged_attention: bias.position_table has {self.position_table.shape[1]} positions, want "
                "an odd number: attention is bidirectional and i - j has either sign"
            )


def time_bucket(gap: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each gap, int64, in [0, buckets).

    0 to 3 seconds are buckets 0 to 3; from there a doubling holds four, split at quarters: the position of
    the leading bit and the two bits after it.

    Args:
        gap: int64 seconds, >= 0.
        buckets: T; larger buckets count as T - 1.
    """
    clipped = gap.clamp(0, MAX_GAP)
    exponent = torch.zeros_like(clipped)
    for bit in range(1, 31):
        exponent += (clipped >> bit) > 0
    small = clipped < 4
    quarter = (clipped >> (exponent - 2).clamp_min(0)) & 3
    return torch.where(small, clipped, 4 * (exponent - 1) + quarter).clamp_max(buckets - 1)


def relative_position(query: Tensor, key: Tensor, positions: int, causal: bool) -> Tensor:
    """Return the entry of the position table for query and key indices (int64, of broadcastable shapes)."""
    distance = query - key
    if causal:
        return distance.clamp(0, positions - 1)
    most = (positions - 1) // 2
    return distance.clamp(-most, most) + most


def added_scores(
    time_table: Tensor | None,
    position_table: Tensor | None,
    *,
    gap: Tensor | None = None,
    distance: Tensor | None = None,
    causal: bool,
) -> Tensor:
    """Look up what is added to the scores of query and key pairs; the sum over the tables given.

    Args:
        time_table: (H, T) floating or None.
        position_table: (H, R) floating or None; one of the two is given.
        gap: (...) int64 seconds between query and key, >= 0; with `time_table`.
        distance: (...) int64, query index minus key index; with `position_table`.
        causal: how `position_table` is laid out, see `AttentionBias`.

    Returns:
        (H, ...), dtype of the tables. Differentiable in both tables.
    """
    parts = []
    if time_table is not None and gap is not None:
        parts.append(time_table[:, time_bucket(gap, time_table.shape[1])])
    if position_table is not None and distance is not None:
        zero = torch.zeros_like(distance)
        parts.append(position_table[:, relative_position(distance, zero, position_table.shape[1], causal)])
    if not parts:
        raise ArgumentError("added_scores: give time_table and gap, or position_table and distance")
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
