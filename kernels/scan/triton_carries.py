# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The scan's small GPU kernels: carries along a long sequence's chunks, and sums of partial gradients."""

import triton
import triton.language as tl

from recsys.kernels.scan.triton_steps import (
    FIRST_SLOT,
    SEQUENCE,
    SLOTS,
    load_field,
    load_states,
    locate,
    point_states,
)
from recsys.kernels.shared.triton_math import LOG2_E


@triton.jit
def carry_chunks(
    A,
    ends,
    spans,
    carries,
    chains,
    start,
    result,
    d_inner,
    d_state,
    REVERSE: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Turn what leaves each chunk alone (`ends`) into what enters it (`carries`), along one sequence.

    A chunk multiplies what enters by exp(A times the sum of its steps): exact, where a product of decays
    would round once per event. `start` enters the first chunk (the last, in reverse) and `result` receives
    what leaves the other end; both (B, d_inner, d_state) or None.
    """
    chain, c, s, own, _, inside = locate(d_inner, d_state, SPLIT, BLOCK_D, BLOCK_S)
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    first = load_field(chains, chain, FIRST_SLOT).to(tl.int64)
    count = load_field(chains, chain, SLOTS)
    state_at = load_field(chains, chain, SEQUENCE).to(tl.int64) * d_inner * d_state
    carry = tl.zeros((SPLIT, BLOCK_D, BLOCK_S // SPLIT), tl.float32)
    if start is not None:
        carry += tl.load(point_states(start + state_at, own, s), mask=inside, other=0.0)
    for i in range(count):
        slot = first + (count - 1 - i if REVERSE else i)
        end = tl.load(point_states(ends + slot * d_inner * d_state, own, s), mask=inside, other=0.0)
        span = tl.load(spans + slot * d_inner + c, mask=c < d_inner, other=0.0)
        tl.store(point_states(carries + slot * d_inner * d_state, own, s), carry, mask=inside)
        carry = tl.exp2(span[None, :, None] * rates) * carry + end
    if result is not None:
        tl.store(point_states(result + state_at, own, s), carry, mask=inside)


@triton.jit(do_not_specialize=["count", "parts"])
def add_parts(source, target, count, parts, BLOCK: tl.constexpr):
    """Add `parts` rows of `count` numbers in order, the same for each number whatever `count` is."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(parts):
        total += tl.load(source + at, mask=at < count, other=0.0)
        source += count
    tl.store(target + at, total.to(target.dtype.element_ty), mask=at < count)
