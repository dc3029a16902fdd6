"""A numba type for one SIMD register of float32, and the operations that the kernels need on it.

Each operation is an intrinsic that emits LLVM vector instructions; LLVM splits them where the machine's
registers are narrower. Arrays are 1-D contiguous float32; positions are counted in elements.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from recsys.kernels.shared.vector.compiling import intrinsic


def _native_lanes() -> int:
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


LANES = _native_lanes()
"""float32 elements per vector: the host's register width."""

FLOAT = ir.FloatType()
INT = ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
INT_VECTOR = ir.VectorType(INT, LANES)

# ln(2)^k / k!; stopping at k = 6 leaves a relative error of 1.2e-7 at the ends of [-0.5, 0.5].
EXP2_COEFFICIENTS = (
    1.0,
    0.6931471805599453,
    0.2402265069591007,
    0.05550410866482158,
    0.009618129107628477,
    0.0013333558146428443,
    0.00015403530393381608,
)
_EXP2_LOWEST = -126.0


class Lanes(types.Type):
    """One vector of `LANES` float32 values."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes{LANES}")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, VECTOR)  # type: ignore[no-untyped-call]


LANES_TYPE: Any = cast("Any", Lanes)()


def constant(value: float) -> ir.Constant:
    """Make a vector constant."""
    return ir.Constant(VECTOR, [value] * LANES)


def spread(builder: Any, scalar: Any, vector: Any = VECTOR, mask: Any = None) -> Any:
    """Emit the broadcast of a scalar to all lanes."""
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, scalar, INT(0))
    return builder.shuffle_vector(first, empty, mask or ir.Constant(INT_VECTOR, [0] * LANES))


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    """Emit the address of an element of a 1-D contiguous array, unchecked."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [position])


def load_vector(builder: Any, pointer: Any) -> Any:
    """Emit an unaligned vector load."""
    return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def store_vector(builder: Any, value: Any, pointer: Any) -> None:
    """Emit an unaligned vector store."""
    builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer()), align=4)


def call(builder: Any, name: str, *args: Any) -> Any:
    """Emit a call of an LLVM intrinsic on vectors, such as llvm.fma."""
    function_type = ir.FunctionType(VECTOR, [VECTOR] * len(args))
    declare: Any = cgutils.get_or_insert_function
    function = declare(builder.module, function_type, f"{name}.v{LANES}f32")
    return builder.call(function, args)


def prefetch(builder: Any, pointer: Any) -> None:
    """Emit a hint that the line at an address, which need not be valid, will be read."""
    byte = ir.IntType(8).as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
    declare: Any = cgutils.get_or_insert_function
    function = declare(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(pointer, byte), INT(0), INT(3), INT(1)])


@intrinsic
def load(typing_context: Any, array: Any, position: Any) -> Any:
    """Load LANES elements of `array` from `position`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load_vector(builder, element_pointer(context, builder, signature.args[0], args[0], args[1]))

    return LANES_TYPE(array, types.int64), emit


@intrinsic
def store(typing_context: Any, array: Any, position: Any, value: Any) -> Any:
    """Store a vector to `array` from `position`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, signature.args[0], args[0], args[1])
        store_vector(builder, args[2], pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES_TYPE), emit


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """Repeat one float32 in all lanes."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0])

    return LANES_TYPE(types.float32), emit


def _binary(emit_operation: Callable[[Any, Any, Any], Any], doc: str) -> Any:
    def typer(typing_context: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit_operation(builder, args[0], args[1])

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), emit

    typer.__doc__ = doc
    return intrinsic(typer)


def _emit_maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


add = _binary(lambda builder, a, b: builder.fadd(a, b), "Add lane by lane.")
subtract = _binary(lambda builder, a, b: builder.fsub(a, b), "Subtract lane by lane.")
multiply = _binary(lambda builder, a, b: builder.fmul(a, b), "Multiply lane by lane.")
divide = _binary(lambda builder, a, b: builder.fdiv(a, b), "Divide lane by lane.")
maximum = _binary(_emit_maximum, "Take the larger lane; the first where a lane is NaN.")


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a * b + c with one rounding."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call(builder, "llvm.fma", *args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), emit


@intrinsic
def square_root(typing_context: Any, x: Any) -> Any:
    """Take the square root lane by lane, rounded to nearest."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call(builder, "llvm.sqrt", args[0])

    return LANES_TYPE(LANES_TYPE), emit


@intrinsic
def exp2(typing_context: Any, x: Any) -> Any:
    """Compute 2^x for x <= 127 with relative error below 2e-7; 0 below -126; NaN for NaN."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lowest = constant(_EXP2_LOWEST)
        vanishes = builder.fcmp_ordered("<", args[0], lowest)
        x = builder.select(vanishes, lowest, args[0])
        whole = call(builder, "llvm.rint", x)
        part = builder.fsub(x, whole)  # in [-0.5, 0.5], exact
        power = constant(EXP2_COEFFICIENTS[-1])
        for coefficient in EXP2_COEFFICIENTS[-2::-1]:
            power = call(builder, "llvm.fma", power, part, constant(coefficient))
        # A NaN makes this conversion arbitrary and the product below NaN all the same.
        exponent = builder.add(builder.fptosi(whole, INT_VECTOR), ir.Constant(INT_VECTOR, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(INT_VECTOR, [23] * LANES)), VECTOR)
        return builder.select(vanishes, constant(0.0), builder.fmul(power, scale))

    return LANES_TYPE(LANES_TYPE), emit


@intrinsic
def select_le(typing_context: Any, bound: Any, first: Any, value: Any, otherwise: Any) -> Any:
    """Take `value` in lanes l with bound <= first + l, `otherwise` in the others."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bound, first, value, otherwise = args
        steps = ir.Constant(INT_VECTOR, list(range(LANES)))
        gap = spread(builder, builder.trunc(builder.sub(bound, first), INT), INT_VECTOR)
        return builder.select(builder.icmp_signed("<=", gap, steps), value, otherwise)

    return LANES_TYPE(types.int64, types.int64, LANES_TYPE, LANES_TYPE), emit


@intrinsic
def above_mask(typing_context: Any, a: Any, b: Any) -> Any:
    """Set bit l of an int64 where lane l of a is greater than lane l of b."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fcmp_ordered(">", args[0], args[1]), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(LANES_TYPE, LANES_TYPE), emit


@intrinsic
def lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Return the place of the lowest set bit of an int64, which must not be 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), emit


@intrinsic
def sum_lanes(typing_context: Any, value: Any) -> Any:
    """Add the lanes of a vector, halves first."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, half = args[0], LANES // 2
        while half:
            swap = ir.Constant(INT_VECTOR, [lane ^ half for lane in range(LANES)])
            total = builder.fadd(total, builder.shuffle_vector(total, total, swap))
            half //= 2
        return builder.extract_element(total, INT(0))

    return types.float32(LANES_TYPE), emit


@intrinsic
def max_lanes(typing_context: Any, value: Any) -> Any:
    """Take the largest lane of a vector; what NaNs do to it is left open."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        largest, half = args[0], LANES // 2
        while half:
            swap = ir.Constant(INT_VECTOR, [lane ^ half for lane in range(LANES)])
            largest = _emit_maximum(builder, largest, builder.shuffle_vector(largest, largest, swap))
            half //= 2
        return builder.extract_element(largest, INT(0))

    return types.float32(LANES_TYPE), emit


@intrinsic
def transpose_square(
    typing_context: Any, target: Any, to: Any, to_row: Any, source: Any, at: Any, row: Any, count: Any
) -> Any:
    """Lay the first LANES elements of `count` rows of source as columns of target; the rest of it is zero.

    Row i begins at source[at + i row], column d of target at target[to + d to_row]; 1 <= count.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, to, to_row, source, at, row, count = args
        word = ir.IntType(64)
        first = element_pointer(context, builder, signature.args[3], source, at)
        rows = []
        for lane in range(LANES):
            there = builder.icmp_signed("<", word(lane), count)
            place = builder.select(there, builder.mul(row, word(lane)), word(0))
            value = load_vector(builder, builder.gep(first, [place]))
            rows.append(builder.select(there, value, constant(0.0)))
        # Blocks of `step` x `step` change places across the diagonal, for ever larger blocks.
        step = 1
        while step < LANES:
            upper = [x if not x & step else LANES + x - step for x in range(LANES)]
            lower = [x + step if not x & step else LANES + x for x in range(LANES)]
            for i in range(LANES):
                if not i & step:
                    a, b = rows[i], rows[i + step]
                    rows[i] = builder.shuffle_vector(a, b, ir.Constant(INT_VECTOR, upper))
                    rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(INT_VECTOR, lower))
            step *= 2
        start = element_pointer(context, builder, signature.args[0], target, to)
        for lane in range(LANES):
            store_vector(builder, rows[lane], builder.gep(start, [builder.mul(to_row, word(lane))]))
        return context.get_dummy_value()

    number = types.int64
    return types.void(target, number, number, source, number, number, number), emit
