"""A first look at LANES items for one row, in the order of memory: can any of them pass the row's bar?

One row alone is bound by reading the items, and the exact chain of products would need them turned: more work
than the reading, in an order that the processor does not read ahead. Any other order of summing gives other
last bits, but cannot stray far: with n = width and u = 2^-24 both sums lie within n u |h| |w| of the truth. So
the look sums as it reads, and only a score that comes within that margin of the bar is made exactly.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.ranking.emitting import any_lane, begin_loop, end_loop, tree
from recsys.kernels.vector.compiling import intrinsic
from recsys.kernels.vector.lanes import (
    INT_VECTOR,
    LANES,
    call,
    constant,
    element_pointer,
    load_vector,
    spread,
)

_WORD = ir.IntType(64)
_TINY = 1.2e-38
"""More than products or squares lose where they are too small to be rounded relatively."""



def _shuffle(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(INT_VECTOR, places))


def _fold(builder: Any, vectors: list[Any]) -> Any:
    """Emit the sums of LANES vectors as the lanes of one, by halving what each vector still has to add."""
    quads = range(0, LANES, 4)
    low = [x for q in quads for x in (q, q + LANES, q + 1, q + 1 + LANES)]
    high = [x for q in quads for x in (q + 2, q + 2 + LANES, q + 3, q + 3 + LANES)]
    low_pair = [x for q in quads for x in (q, q + 1, q + LANES, q + 1 + LANES)]
    high_pair = [x for q in quads for x in (q + 2, q + 3, q + 2 + LANES, q + 3 + LANES)]
    even = [4 * q + x for q in range(0, 2 * LANES // 4, 2) for x in range(4)]
    odd = [x + 4 for x in even]
    stages = [(low, high), (low_pair, high_pair)] + [(even, odd)] * (len(bin(LANES // 4)) - 3)
    for first, second in stages:
        vectors = [
            builder.fadd(_shuffle(builder, a, b, first), _shuffle(builder, a, b, second))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


@intrinsic
def skim(
    typing_context: Any,
    items: Any,
    at: Any,
    width: Any,
    row: Any,
    bars: Any,
    bars_at: Any,
    reach: Any,
) -> Any:
    """Return 0 where no score of LANES items can be above bars[bars_at] and all must be finite, else 1.

    Args:
        items: (., width) as 1-D; read from `at`, up to LANES - 1 elements beyond the last item.
        row: the row, zeros behind it up to a multiple of LANES.
        reach: |row| times the relative margin; infinite to look at nothing.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        items, at, width, row, bars, bars_at, reach = args
        a = element_pointer(context, builder, signature.args[0], items, at)
        h = element_pointer(context, builder, signature.args[3], row, _WORD(0))
        bar = builder.load(element_pointer(context, builder, signature.args[4], bars, bars_at))
        # Whole vectors: what lies behind an item is multiplied by zero.
        stop = builder.and_(builder.add(width, _WORD(LANES - 1)), _WORD(-LANES))
        squares = [constant(0.0)] * 4
        sums = []
        for first in range(0, LANES, 4):
            own = [builder.gep(a, [builder.mul(width, _WORD(first + i))]) for i in range(4)]
            loop = begin_loop(builder, "skim", _WORD(0), stop, LANES, [constant(0.0)] * 4 + squares)
            d, _, carried = loop
            query = load_vector(builder, builder.gep(h, [d]))
            loaded = [load_vector(builder, builder.gep(pointer, [d])) for pointer in own]
            new = [call(builder, "llvm.fma", x, query, s) for x, s in zip(loaded, carried[:4], strict=True)]
            new += [call(builder, "llvm.fma", x, x, s) for x, s in zip(loaded, carried[4:], strict=True)]
            end_loop(builder, loop, new)
            sums += carried[:4]
            squares = carried[4:]
        scores = _fold(builder, sums)
        energy, half = tree(squares, builder.fadd), LANES // 2
        while half:
            swapped = _shuffle(builder, energy, energy, [lane ^ half for lane in range(LANES)])
            energy = builder.fadd(energy, swapped)
            half //= 2
        length = call(builder, "llvm.sqrt", builder.fadd(energy, constant(_TINY)))
        margin = builder.fadd(builder.fmul(length, spread(builder, reach)), constant(_TINY))
        limit = builder.fsub(spread(builder, bar), margin)
        near = builder.fcmp_unordered(">", scores, limit)
        return builder.zext(any_lane(builder, near), _WORD)

    number = types.int64
    return types.int64(items, number, number, row, bars, number, types.float32), emit
