"""Right sides of products by matrix tiles, laid out in blocks as `vector.tiles` wants them.

A block is 32 x 32 with its rows interleaved two by two, (16, 32, 2), and lies in one piece.
"""

import torch
from torch import Tensor

from recsys.kernels.shared.vector.tiles import BLOCK

__all__ = ["blocks", "transposed_blocks"]


def blocks(x: Tensor, *, columns_first: bool = False) -> Tensor:
    """Lay out (n, d) bfloat16, n and d multiples of 32.

    Returns:
        (n / 32, d / 32, 16, 32, 2); with `columns_first` (d / 32, n / 32, 16, 32, 2).
    """
    view = x.reshape(-1, BLOCK // 2, 2, x.shape[1] // BLOCK, BLOCK)
    return view.permute((3, 0, 1, 4, 2) if columns_first else (0, 3, 1, 4, 2)).contiguous()


def transposed_blocks(x: Tensor) -> Tensor:
    """Lay out the transpose of (n, d) bfloat16, as (n / 32, d / 32, 16, 32, 2).

    Interleaved rows of a transpose are neighbours in a row: they move as one word.
    """
    words = x.contiguous().view(torch.int32)
    turned = words.view(-1, BLOCK, words.shape[1]).transpose(1, 2).contiguous()
    return turned.view(torch.bfloat16).view(len(turned), -1, BLOCK // 2, BLOCK, 2)
