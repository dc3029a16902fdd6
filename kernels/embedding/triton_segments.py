# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Sums of gradient rows by id on the GPU: a program sums a chunk of sorted events, a second joins chunks.

Runs of one id that lie inside a chunk are final. A run that goes on into the next chunk leaves its part in
`heads` (it began before) or `tails` (it begins here), which are added in the order of the chunks.

Legend: M events sorted by id, C chunks, d width.
"""

import triton
import triton.language as tl

__all__ = ["chunk_kernel", "join_kernel"]

_SIZES = ["M", "slices", "per_row", "per_coefficient"]


@triton.jit(do_not_specialize=_SIZES)
def chunk_kernel(
    keys,
    order,
    places,
    rows,
    coefficients,
    out,
    heads,
    tails,
    M,
    D,
    slices,
    per_row,
    per_coefficient,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum the runs of one chunk, a slice of columns.

    keys, order, places (M,) int64: sorted ids, the events that had them, and the rows of `out` for them;
    rows (., d), out (., d), heads, tails (C, d) float32; coefficients float32 or None.
    """
    chunk = (tl.program_id(0) // slices).to(tl.int64)
    o_event = tl.arange(0, BLOCK_M)
    o_column = tl.program_id(0) % slices * BLOCK_D + tl.arange(0, BLOCK_D)
    m_column = (o_column < D)[None, :]
    place = chunk * BLOCK_M + o_event
    inside = place < M
    key = tl.load(keys + place, mask=inside, other=-1)
    before = tl.load(keys + place - 1, mask=inside & (place > 0), other=-1)
    after = tl.load(keys + place + 1, mask=place + 1 < M, other=-1)
    begins = inside & ((o_event == 0) | (key != before))
    run = tl.cumsum(begins.to(tl.int32), 0) - 1
    member = (run[None, :] == o_event[:, None]) & inside[None, :]

    event = tl.load(order + place, mask=inside, other=0)
    source = (event // per_row) * D
    m_row = inside[:, None] & m_column
    tile = tl.load(rows + source[:, None] + o_column[None, :], mask=m_row, other=0.0)
    if coefficients is not None:
        factor = tl.load(coefficients + event // per_coefficient, mask=inside, other=0.0)
        tile = tile * factor[:, None]
    sums = tl.dot(member.to(tl.float32), tile, input_precision="ieee")

    # By run: where its sum goes, whether it began before this chunk, and whether it goes on after.
    to = tl.max(tl.where(member, tl.load(places + place, mask=inside, other=-1)[None, :], -1), 1)
    came = inside & (o_event == 0) & (key == before)
    goes = inside & (o_event == BLOCK_M - 1) & (key == after)
    came = tl.max((member & came[None, :]).to(tl.int32), 1) > 0
    goes = tl.max((member & goes[None, :]).to(tl.int32), 1) > 0
    real = to >= 0
    m_out = (real & ~came & ~goes)[:, None] & m_column
    tl.store(out + to[:, None] * D + o_column[None, :], sums, mask=m_out)
    carried = (chunk * D + o_column)[None, :] + tl.zeros((BLOCK_M, 1), tl.int64)
    tl.store(heads + carried, sums, mask=(real & came)[:, None] & m_column)
    tl.store(tails + carried, sums, mask=(real & goes & ~came)[:, None] & m_column)


@triton.jit(do_not_specialize=["M", "slices"])
def join_kernel(
    keys,
    places,
    ends,
    heads,
    tails,
    out,
    M,
    D,
    slices,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Finish the run that begins in one chunk and goes on into others, if there is one.

    ends (C,) int64: behind the last event with the id of each chunk's last event.
    """
    chunk = (tl.program_id(0) // slices).to(tl.int64)
    o_column = tl.program_id(0) % slices * BLOCK_D + tl.arange(0, BLOCK_D)
    m_column = o_column < D
    last = chunk * BLOCK_M + BLOCK_M - 1
    if last + 1 < M:
        key = tl.load(keys + last)
        first = chunk * BLOCK_M
        came = (tl.load(keys + first) == key) & (first > 0)
        if first > 0:
            came = came & (tl.load(keys + first - 1) == key)
        if (tl.load(keys + last + 1) == key) & ~came:
            sums = tl.load(tails + chunk * D + o_column, mask=m_column, other=0.0)
            final = (tl.load(ends + chunk) - 1) // BLOCK_M
            for begin in range(chunk + 1, final + 1, BLOCK_C):
                part = begin + tl.arange(0, BLOCK_C)
                mask = (part <= final)[:, None] & m_column[None, :]
                tile = tl.load(heads + part[:, None] * D + o_column[None, :], mask=mask, other=0.0)
                sums += tl.sum(tile, 0)
            tl.store(out + tl.load(places + last) * D + o_column, sums, mask=m_column)
