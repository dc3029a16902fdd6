# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""A kernel that does nothing but exponentials, to count how many a chip gives a second."""

import triton
import triton.language as tl


@triton.jit
def exponentials_kernel(x, ROUNDS: tl.constexpr, SIZE: tl.constexpr):
    """Apply 2^-x to each number ROUNDS times; four chains a thread, which hides their latency."""
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    value = tl.load(x + at)
    for _ in range(ROUNDS):
        value = tl.exp2(-value)
    tl.store(x + at, value)
