"""Negative draws on the GPU: one Triton kernel, nothing of the draws' size in between."""

import torch
from torch import Tensor

from recsys.kernels.sampling.reference import SHARED_ROW, TRIES
from recsys.kernels.sampling.tables import NegativeSampler
from recsys.kernels.sampling.triton_forward import draw_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch
from recsys.kernels.shared.random_words import row_start

__all__ = ["draw_negatives", "draw_shared"]


def draw_negatives(
    sampler: NegativeSampler, targets: Tensor, count: int, seed: int, first_row: int
) -> Tensor:
    """Draw `count` items for each row, none of them the row's target: (N, K) int64."""
    return _draw(sampler, targets.contiguous(), len(targets), count, seed, first_row, targets.device)


def draw_shared(sampler: NegativeSampler, count: int, seed: int, device: torch.device) -> Tensor:
    """Draw `count` items for all rows together: (K,) int64."""
    return _draw(sampler, None, 1, count, seed, SHARED_ROW, device)[0]


def _draw(
    sampler: NegativeSampler,
    targets: Tensor | None,
    rows: int,
    count: int,
    seed: int,
    first_row: int,
    device: torch.device,
) -> Tensor:
    out = torch.empty(rows, count, dtype=torch.int64, device=device)
    config = choose_config("sampling", "draws", architecture(out), count=count)
    draw_blocks = -(-count // config.blocks["BLOCK_K"])
    # In halves, for the type of a kernel's argument is not to depend on the seed.
    high, low = row_start(seed, first_row)
    launch(
        draw_kernel,
        -(-rows // config.blocks["BLOCK_N"]) * draw_blocks,
        config,
        targets,
        None if sampler.is_uniform else sampler.threshold,
        None if sampler.is_uniform else sampler.alias,
        out,
        rows,
        count,
        sampler.n_items,
        high,
        low,
        draw_blocks,
        TRIES=TRIES,
    )
    return out
