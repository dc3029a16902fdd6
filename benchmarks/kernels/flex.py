"""FlexAttention with a learned bias by time gap, as its documentation builds one."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["BUCKETS", "time_biased"]

BUCKETS = 64


def time_biased(timestamps: Tensor) -> Callable[..., Tensor]:
    """Return attention over (B, L, H, Dh) with a (H, BUCKETS) table looked up by the gap of two times.

    Args:
        timestamps: (B, L) int64.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    longest = timestamps.shape[1]
    times = (timestamps - timestamps[:, :1]).clamp(0, 2**31 - 1).int()

    def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    blocks = create_block_mask(sees, None, None, longest, longest, device=timestamps.device)
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        def add(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            gap = (times[b, query] - times[b, key]).abs()
            # Four buckets to a doubling, by the logarithm: near enough for a comparison of speed.
            place = (4 * torch.log2(gap.float() + 1.0)).int().clamp(max=BUCKETS - 1)
            return score + table[h, place]

        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        made: Tensor = compiled(q, k, v, score_mod=add, block_mask=blocks)
        return made.transpose(1, 2)

    return run
