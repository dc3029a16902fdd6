"""Embedding look-up on the GPU, whose gradient is a sum over sorted ids: no atomics, the same bits always."""

import torch
from torch import Tensor

from recsys.kernels.embedding.gather import look_up
from recsys.kernels.embedding.triton_segments import chunk_kernel, join_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["lookup", "merge_rows", "table_gradient"]


def lookup(table: Tensor, ids: Tensor, sparse: bool) -> Tensor:
    """Rows of the table for ids (M,), or sums of rows for ids (M, k)."""
    return look_up(table, ids, sparse, table_gradient)


def merge_rows(gradient: Tensor) -> Tensor:
    """Add up the rows that a sparse gradient holds for the same id."""
    return table_gradient(gradient, gradient._indices()[0], gradient._values().float(), True)


def table_gradient(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    sparse: bool,
    *,
    per_row: int = 1,
    coefficients: Tensor | None = None,
    per_coefficient: int = 1,
) -> Tensor:
    """Add up gradient rows by id; arguments as in `cpu.table_gradient`.

    A sparse gradient waits for the device once, for how many ids are distinct; a dense one never.
    """
    keys, order = ids.reshape(-1).sort(stable=True)
    if not sparse:
        return _sum_runs(keys, order, keys, rows, table.shape[0], per_row, coefficients, per_coefficient).to(
            table.dtype
        )
    begins = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=begins[1:])
    distinct = keys[begins]
    summed = _sum_runs(
        keys, order, begins.cumsum(0) - 1, rows, len(distinct), per_row, coefficients, per_coefficient
    )
    return torch.sparse_coo_tensor(
        distinct[None], summed.to(table.dtype), table.shape, is_coalesced=True, check_invariants=False
    )


def _sum_runs(
    keys: Tensor,
    order: Tensor,
    places: Tensor,
    rows: Tensor,
    n_out: int,
    per_row: int,
    coefficients: Tensor | None,
    per_coefficient: int,
) -> Tensor:
    """Sum the rows of each run of equal keys into row `places` of (n_out, d) float32; zeros elsewhere."""
    count, width = len(keys), rows.shape[1]
    out = torch.zeros(n_out, width, device=rows.device)
    config = choose_config("embedding", "segments", architecture(rows), width=width)
    blocks = config.blocks
    events = blocks["BLOCK_M"]
    chunks = -(-count // events)
    slices = -(-width // blocks["BLOCK_D"])
    heads, tails = torch.empty(2, chunks, width, device=rows.device)
    launch(
        chunk_kernel,
        chunks * slices,
        config,
        keys,
        order,
        places,
        rows.contiguous(),
        None if coefficients is None else coefficients.contiguous(),
        out,
        heads,
        tails,
        count,
        width,
        slices,
        per_row,
        per_coefficient,
    )
    ends = torch.searchsorted(keys, keys[events - 1 :: events].contiguous(), right=True)
    joining = choose_config("embedding", "join", architecture(rows), width=width)
    launch(
        join_kernel,
        len(ends) * slices,
        joining,
        keys,
        places,
        ends,
        heads,
        tails,
        out,
        count,
        width,
        slices,
        BLOCK_M=events,
        BLOCK_D=blocks["BLOCK_D"],
    )
    return out
