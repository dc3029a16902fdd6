"""Inner products and squared distances of float32 vectors in double precision, eight elements at a time."""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from recsys.kernels.shared.vector import Array, Number, compiled
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import FLOAT, INT, element_pointer

_LANES = 8
_WORD = ir.IntType(64)
_NARROW, _WIDE = ir.VectorType(FLOAT, _LANES), ir.VectorType(ir.DoubleType(), _LANES)


def _sum_of(squared: bool) -> Any:
    """Make the sum over `count` elements, a multiple of eight, of products or of squared differences."""

    @intrinsic
    def total(typing_context: Any, left: Any, at: Any, right: Any, beside: Any, count: Any) -> Any:
        number = types.int64

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            left, at, right, beside, count = args
            pointers = (
                element_pointer(context, builder, signature.args[0], left, at),
                element_pointer(context, builder, signature.args[2], right, beside),
            )
            declare: Any = cgutils.get_or_insert_function
            kind = ir.FunctionType(_WIDE, [_WIDE] * 3)
            fma = declare(builder.module, kind, f"llvm.fma.v{_LANES}f64")
            allocate: Any = cgutils.alloca_once_value
            place = allocate(builder, ir.Constant(_WIDE, [0.0] * _LANES))
            with cgutils.for_range_slice(builder, _WORD(0), count, _WORD(_LANES), _WORD) as (d, _):
                a, b = (
                    builder.fpext(
                        builder.load(builder.bitcast(builder.gep(start, [d]), _NARROW.as_pointer()), align=4),
                        _WIDE,
                    )
                    for start in pointers
                )
                if squared:
                    a = b = builder.fsub(a, b)
                builder.store(builder.call(fma, [a, b, builder.load(place)]), place)
            sums, half = builder.load(place), _LANES // 2
            while half:
                swap = ir.Constant(ir.VectorType(INT, _LANES), [lane ^ half for lane in range(_LANES)])
                sums = builder.fadd(sums, builder.shuffle_vector(sums, sums, swap))
                half //= 2
            return builder.extract_element(sums, INT(0))

        return types.float64(left, number, right, number, number), emit

    return total


_product, _distance = _sum_of(False), _sum_of(True)


@compiled
def exact_score(
    queries: Array, q: Number, vectors: Array, v: Number, width: Number, squared: Number
) -> Number:
    """Score the query at queries[q] and the item at vectors[v]: q . v, or -|q - v|^2 if `squared`."""
    whole = width - width % 8
    if squared:
        total = _distance(queries, q, vectors, v, whole)
        for d in range(whole, width):
            total += (np.float64(vectors[v + d]) - np.float64(queries[q + d])) ** 2
        return -total
    total = _product(queries, q, vectors, v, whole)
    for d in range(whole, width):
        total += np.float64(vectors[v + d]) * np.float64(queries[q + d])
    return total
