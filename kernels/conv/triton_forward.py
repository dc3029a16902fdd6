# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The convolution's forward kernels on a GPU: flat tiles over (events, channels), no list of sequences.

An event's position is its index inside its sequence (-1 beyond the last sequence). Tap k of an event is the
row k before it where position >= k, else a column of the initial state, else nothing: a tile needs to know
nothing about where sequences begin, and an event gets the same arithmetic wherever its tile is cut.
"""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_math import LOG2_E


@triton.jit(do_not_specialize=["n_events", "n_sequences", "halvings"])
def positions_kernel(offsets, positions, sequences, n_events, n_sequences, halvings, BLOCK_N: tl.constexpr):
    """Write each event's position in its sequence and the sequence's number, by halving over `offsets`."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < n_events
    low = tl.zeros([BLOCK_N], tl.int32)  # offsets[low] <= row < offsets[high], or the row has no sequence
    high = low + n_sequences
    for _ in range(halvings):
        middle = (low + high) // 2
        reached = tl.load(offsets + middle, mask=inside, other=0) <= rows
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)
    begin = tl.load(offsets + low, mask=inside, other=0)
    tl.store(positions + rows, tl.where(rows < tl.load(offsets + n_sequences), rows - begin, -1), mask=inside)
    tl.store(sequences + rows, low, mask=inside)


@triton.jit
def silu(x):
    """Return x / (1 + exp(-x)): 0 where the exponential overflows."""
    return x / (1.0 + tl.exp2(x * -LOG2_E))


@triton.jit
def initial_input(initial, sequence, columns, channels, position, mask, WIDTH: tl.constexpr):
    """Load the inputs at positions (rows,) before the sequences' starts, -1 the last one; 0 where masked off.

    `initial` is (B, channels, WIDTH - 1), oldest first; `sequence` (rows,), `mask` (rows, columns).
    """
    start = (sequence.to(tl.int64) * channels)[:, None] + columns[None, :]
    return tl.load(initial + start * (WIDTH - 1) + (WIDTH - 1 + position)[:, None], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["n_events"])
def forward_kernel(
    x,
    weight,
    bias,
    positions,
    sequences,
    initial,
    y,
    n_events,
    channels,
    x_row,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Convolve a tile of BLOCK_N events by BLOCK_D channels; rows of x lie `x_row` apart."""
    blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    rows = (program // blocks).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = program % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    inside, exists = rows < n_events, columns < channels
    position = tl.load(positions + rows, mask=inside, other=-1)
    if initial is not None:
        sequence = tl.load(sequences + rows, mask=inside, other=0)

    total = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if bias is not None:
        total += tl.load(bias + columns, mask=exists, other=0.0)[None, :]
    for k in tl.static_range(WIDTH):
        tap = tl.load(weight + columns * WIDTH + (WIDTH - 1 - k), mask=exists, other=0.0)
        at = ((rows - k) * x_row)[:, None] + columns[None, :]
        value = tl.load(x + at, mask=(position >= k)[:, None] & exists[None, :], other=0.0).to(tl.float32)
        if initial is not None and k > 0:
            before = ((position >= 0) & (position < k))[:, None] & exists[None, :]
            value += initial_input(initial, sequence, columns, channels, position - k, before, WIDTH)
        # Fused by request, not by the compiler's choice: the same bits in every tile.
        total = tl.fma(tl.broadcast_to(tap[None, :], [BLOCK_N, BLOCK_D]), value, total)
    if GATED:
        total = silu(total)
    total = tl.where((position >= 0)[:, None], total, 0.0)
    at = (rows * channels)[:, None] + columns[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside[:, None] & exists[None, :])


@triton.jit(do_not_specialize=["n_sequences"])
def final_state_kernel(
    x,
    offsets,
    initial,
    state,
    n_sequences,
    channels,
    x_row,
    WIDTH: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write the last WIDTH - 1 inputs of BLOCK_B sequences, those of the initial state among them."""
    blocks = tl.cdiv(channels, BLOCK_D)
    program = tl.program_id(0)
    sequence = program // blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    columns = program % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    inside, exists = sequence < n_sequences, columns < channels
    begin = tl.load(offsets + sequence, mask=inside, other=0)
    end = tl.load(offsets + sequence + 1, mask=inside, other=0)
    start = (sequence.to(tl.int64) * channels)[:, None] + columns[None, :]
    for j in tl.static_range(WIDTH - 1):
        position = end - begin - (WIDTH - 1) + j
        at = ((begin + position).to(tl.int64) * x_row)[:, None] + columns[None, :]
        here = (inside & (position >= 0))[:, None] & exists[None, :]
        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        if initial is not None:
            before = (inside & (position < 0))[:, None] & exists[None, :]
            value += initial_input(initial, sequence, columns, channels, position, before, WIDTH)
        tl.store(state + start * (WIDTH - 1) + j, value, mask=inside[:, None] & exists[None, :])
