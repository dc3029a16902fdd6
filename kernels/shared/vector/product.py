"""A matrix product for tiles that lie in cache: C (+)= A B with A read element by element.

C and B have contiguous rows; A has any two strides, so A, its transpose or a slice of a packed tensor all
do without a copy. Each element of C is one chain of fused multiply-adds over k = 0..K-1: its bits depend on
its row of A and column of B alone, not on the tile's size or place.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.shared.vector.compiling import Array, Number, compiled, intrinsic
from recsys.kernels.shared.vector.lanes import (
    LANES,
    VECTOR,
    call,
    constant,
    element_pointer,
    load_vector,
    spread,
    store_vector,
)

PANEL = 2 * LANES
"""Columns of the widest register tile."""

_WORD = ir.IntType(64)


def _register_tile(rows: int, vectors: int) -> Any:
    """Make the product of `rows` x K and K x `vectors * LANES` with all sums in registers."""

    @intrinsic
    def tile(
        typing_context: Any,
        c: Any,
        c_at: Any,
        c_row: Any,
        a: Any,
        a_at: Any,
        a_row: Any,
        a_k: Any,
        b: Any,
        b_at: Any,
        b_row: Any,
        depth: Any,
        accumulate: Any,
    ) -> Any:
        number = types.int64
        signature = types.void(
            c, number, number, a, number, number, number, b, number, number, number, types.boolean
        )

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            c, c_at, c_row, a, a_at, a_row, a_k, b, b_at, b_row, depth, accumulate = args
            c_pointer = element_pointer(context, builder, signature.args[0], c, c_at)
            a_pointer = element_pointer(context, builder, signature.args[3], a, a_at)
            b_pointer = element_pointer(context, builder, signature.args[7], b, b_at)
            cells = [
                builder.gep(c_pointer, [builder.add(builder.mul(c_row, _WORD(m)), _WORD(n * LANES))])
                for m in range(rows)
                for n in range(vectors)
            ]
            entry = builder.block
            loading, start, head, body, end = (
                builder.append_basic_block(f"tile.{name}")
                for name in ("loading", "start", "head", "body", "end")
            )
            builder.cbranch(accumulate, loading, start)

            builder.position_at_end(loading)
            loaded = [load_vector(builder, cell) for cell in cells]
            builder.branch(start)

            builder.position_at_end(start)
            first = []
            for value in loaded:
                sum_ = builder.phi(VECTOR)
                sum_.add_incoming(constant(0.0), entry)
                sum_.add_incoming(value, loading)
                first.append(sum_)
            builder.branch(head)

            builder.position_at_end(head)
            k = builder.phi(_WORD)
            k.add_incoming(_WORD(0), start)
            sums = []
            for value in first:
                sum_ = builder.phi(VECTOR)
                sum_.add_incoming(value, start)
                sums.append(sum_)
            builder.cbranch(builder.icmp_signed("<", k, depth), body, end)

            builder.position_at_end(body)
            b_k = builder.gep(b_pointer, [builder.mul(k, b_row)])
            right = [load_vector(builder, builder.gep(b_k, [_WORD(n * LANES)])) for n in range(vectors)]
            a_column = builder.gep(a_pointer, [builder.mul(k, a_k)])
            new = []
            for m in range(rows):
                left = spread(builder, builder.load(builder.gep(a_column, [builder.mul(a_row, _WORD(m))])))
                new += [
                    call(builder, "llvm.fma", left, right[n], sums[m * vectors + n]) for n in range(vectors)
                ]
            k.add_incoming(builder.add(k, _WORD(1)), builder.block)
            for sum_, value in zip(sums, new, strict=True):
                sum_.add_incoming(value, builder.block)
            builder.branch(head)

            builder.position_at_end(end)
            for sum_, cell in zip(sums, cells, strict=True):
                store_vector(builder, sum_, cell)
            return context.get_dummy_value()

        return signature, emit

    return tile


# 8 x 2 vectors of sums, 2 of B and 1 of A fill 19 of AVX-512's 32 registers; 4 x 2 fit AVX2's 16.
_TALL = 8 if LANES == 16 else 4
_tall_wide, _four_wide, _two_wide, _one_wide = (_register_tile(m, 2) for m in (_TALL, 4, 2, 1))
_tall_slim, _four_slim, _two_slim, _one_slim = (_register_tile(m, 1) for m in (_TALL, 4, 2, 1))


@compiled
def product(
    c: Array,
    c_at: Number,
    c_row: Number,
    a: Array,
    a_at: Number,
    a_row: Number,
    a_k: Number,
    b: Array,
    b_at: Number,
    b_row: Number,
    rows: Number,
    columns: Number,
    depth: Number,
    accumulate: Number,
) -> None:
    """Compute C = A B, or C += A B, for float32 arrays seen as 1-D, unchecked.

    C[m, n] lies at c[c_at + m c_row + n], A[m, k] at a[a_at + m a_row + k a_k], B[k, n] at
    b[b_at + k b_row + n]; m < rows, n < columns (a multiple of LANES), k < depth.
    """
    n = 0
    while n < columns:
        wide = columns - n >= PANEL
        b_n = b_at + n
        m = 0
        while m < rows:
            left = rows - m
            c_m, a_m = c_at + m * c_row + n, a_at + m * a_row
            if wide:
                if left >= _TALL:
                    _tall_wide(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                    m += _TALL
                elif left >= 4:
                    _four_wide(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                    m += 4
                elif left >= 2:
                    _two_wide(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                    m += 2
                else:
                    _one_wide(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                    m += 1
            elif left >= _TALL:
                _tall_slim(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                m += _TALL
            elif left >= 4:
                _four_slim(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                m += 4
            elif left >= 2:
                _two_slim(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                m += 2
            else:
                _one_slim(c, c_m, c_row, a, a_m, a_row, a_k, b, b_n, b_row, depth, accumulate)
                m += 1
        n += PANEL if wide else LANES
