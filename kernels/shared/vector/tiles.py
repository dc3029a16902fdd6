"""Products of bfloat16 matrices by the matrix tiles of recent x86 processors (AMX), with float32 sums.

A tile is 16 rows of 64 bytes. The kernels multiply blocks of two by two: tiles 0 to 3 hold 32 x 32 float32
sums, 4 and 5 a left block of 32 rows x 32 columns of bfloat16, 6 and 7 a right block of 32 columns whose rows
lie interleaved two by two: word j of row i holds rows 2i and 2i + 1 of column j.

Code with these operations must not even be compiled where `tiles_available` is false. A worker calls
`begin_tiles` first and `end_tiles` last: oneDNN, which shares its thread, finds the unit as it left it.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

import ctypes
import functools
import os
import sys
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from recsys.kernels.shared.vector.compiling import Array, Number, compiled, intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT_VECTOR,
    LANES,
    LANES_TYPE,
    VECTOR,
    call,
    constant,
    element_pointer,
)

BLOCK = 32
"""Rows and columns of a block of sums, and the depth of one step."""

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
_POINTER = _BYTE.as_pointer()


class _Narrow(ir.types._BaseFloatType):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_Narrow._create_instance()
_NARROW = ir.VectorType(_Narrow(), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


_EXP2_FIT = (
    0.9999992611921609,
    0.6931218118654954,
    0.240247456799194,
    0.05591788668156639,
    0.00957006922484689,
)


@functools.cache
def tiles_available() -> bool:
    """Whether the processor has the unit and the system, which is asked for it, lets this process use it.

    RECSYS_TILES=0 in the environment says no, to measure what other processors do.
    """
    if os.environ.get("RECSYS_TILES") == "0":
        return False
    features = binding.get_host_cpu_features()
    if LANES != 16 or not all(features.get(f) for f in ("amx-tile", "amx-bf16", "avx512bf16")):
        return False
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
    except (AttributeError, OSError):
        return False


def _emit(builder: Any, name: str, *args: Any) -> None:
    function_type = ir.FunctionType(ir.VoidType(), [a.type for a in args])
    declare: Any = cgutils.get_or_insert_function
    builder.call(declare(builder.module, function_type, f"llvm.x86.{name}"), args)


def _bytes_at(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    return builder.bitcast(element_pointer(context, builder, array_type, array, position), _POINTER)


def _configure(name: str, doc: str) -> Any:
    def typer(typing_context: Any, config: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit(builder, name, _bytes_at(context, builder, signature.args[0], args[0], _WORD(0)))
            return context.get_dummy_value()

        return types.void(config), emit

    typer.__doc__ = doc
    return intrinsic(typer)


_load_configuration = _configure("ldtilecfg", "Configure the unit by 64 bytes.")
_store_configuration = _configure("sttilecfg", "Store the unit's configuration to 64 bytes.")


@compiled
def begin_tiles() -> Array:
    """Configure this thread's unit; return what `end_tiles` wants."""
    before = np.zeros(64, dtype=np.uint8)
    _store_configuration(before)
    wanted = np.zeros(64, dtype=np.uint8)
    wanted[0] = 1
    for tile in range(8):
        wanted[16 + 2 * tile] = 64  # bytes of a row
        wanted[48 + tile] = 16  # rows
    _load_configuration(wanted)
    return before


@compiled
def end_tiles(before: Array) -> None:
    """Give the unit back in the configuration in which `begin_tiles` found it."""
    _load_configuration(before)


def _rows_below(builder: Any, pointer: Any, stride: Any) -> Any:
    return builder.gep(pointer, [builder.mul(stride, _WORD(16))])


def _sums(name: str, doc: str) -> Any:
    """Make an intrinsic that loads or stores the block of sums at float32 array[at], rows `stride` apart."""

    def typer(typing_context: Any, array: Any, at: Any, stride: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            top = _bytes_at(context, builder, signature.args[0], args[0], args[1])
            step = builder.mul(args[2], _WORD(4))
            bottom = _rows_below(builder, top, step)
            for tile, start in ((0, top), (2, bottom)):
                for right in (0, 1):
                    _emit(builder, name, _BYTE(tile + right), builder.gep(start, [_WORD(64 * right)]), step)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), emit

    typer.__doc__ = doc
    return intrinsic(typer)


load_sums = _sums(
    "tileloadd64", "Load the block of sums from float32 array[at], rows `stride` elements apart."
)
store_sums = _sums(
    "tilestored64", "Store the block of sums to float32 array[at], rows `stride` elements apart."
)


@intrinsic
def clear_sums(typing_context: Any) -> Any:
    """Set the block of sums to zero."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for tile in range(4):
            _emit(builder, "tilezero", _BYTE(tile))
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def add_block_product(
    typing_context: Any, left: Any, at: Any, row: Any, right: Any, beside: Any, pairs: Any
) -> Any:
    """Add left (32 x 32) times right (32 x 32) to the block of sums.

    `left` is uint16, its rows `row` elements apart; `right` is uint16 with rows interleaved two by two, pairs
    of rows `pairs` elements apart.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left, at, row, right, beside, pairs = args
        top = _bytes_at(context, builder, signature.args[0], left, at)
        row = builder.mul(row, _WORD(2))
        start = _bytes_at(context, builder, signature.args[3], right, beside)
        pairs = builder.mul(pairs, _WORD(2))
        _emit(builder, "tileloadd64", _BYTE(4), top, row)
        _emit(builder, "tileloadd64", _BYTE(6), start, pairs)
        _emit(builder, "tileloadd64", _BYTE(7), builder.gep(start, [_WORD(64)]), pairs)
        _emit(builder, "tileloadd64", _BYTE(5), _rows_below(builder, top, row), row)
        for sums, a, b in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7)):
            _emit(builder, "tdpbf16ps", _BYTE(sums), _BYTE(a), _BYTE(b))
        return context.get_dummy_value()

    number = types.int64
    return types.void(left, number, number, right, number, number), emit


@intrinsic
def store_narrow(typing_context: Any, array: Any, position: Any, value: Any) -> Any:
    """Store a vector, rounded to bfloat16 (to nearest, ties to even), to uint16 `array` from `position`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = builder.fptrunc(args[2], _NARROW)
        pointer = element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(narrow, builder.bitcast(pointer, _NARROW.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES_TYPE), emit


@intrinsic
def store_narrow_pair(typing_context: Any, array: Any, position: Any, first: Any, second: Any) -> Any:
    """Store two vectors, rounded to bfloat16, in turns to uint16 `array` from `position`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, position, first, second = args
        low, high = (
            builder.zext(builder.bitcast(builder.fptrunc(value, _NARROW), _HALVES), INT_VECTOR)
            for value in (first, second)
        )
        words = builder.or_(low, builder.shl(high, ir.Constant(INT_VECTOR, [16] * LANES)))
        pointer = element_pointer(context, builder, signature.args[0], array, position)
        builder.store(words, builder.bitcast(pointer, INT_VECTOR.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.int64, LANES_TYPE, LANES_TYPE), emit


@intrinsic
def narrow_exp2(typing_context: Any, x: Any) -> Any:
    """Compute 2^x, x <= 127, with relative error below 3e-6, for what bfloat16 will hold; 2^-126 below -126.

    A polynomial of degree 4 on [-0.5, 0.5], fitted to the relative error, scaled by one instruction.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low = builder.fcmp_ordered("<", args[0], constant(-126.0))
        x = builder.select(low, constant(-126.0), args[0])
        whole = call(builder, "llvm.rint", x)
        part = builder.fsub(x, whole)
        power = constant(_EXP2_FIT[-1])
        for coefficient in _EXP2_FIT[-2::-1]:
            power = call(builder, "llvm.fma", power, part, constant(coefficient))
        mask, rounding = ir.IntType(16), ir.IntType(32)
        function_type = ir.FunctionType(VECTOR, [VECTOR, VECTOR, VECTOR, mask, rounding])
        declare: Any = cgutils.get_or_insert_function
        scale = declare(builder.module, function_type, "llvm.x86.avx512.mask.scalef.ps.512")
        return builder.call(scale, [power, whole, power, mask(-1), rounding(4)])

    return LANES_TYPE(LANES_TYPE), emit


@intrinsic
def narrowed(typing_context: Any, value: Any) -> Any:
    """Round a vector to bfloat16, as `store_narrow` does; the result is float32."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = builder.bitcast(builder.fptrunc(args[0], _NARROW), _HALVES)
        wide = builder.shl(builder.zext(half, INT_VECTOR), ir.Constant(INT_VECTOR, [16] * LANES))
        return builder.bitcast(wide, VECTOR)

    return LANES_TYPE(LANES_TYPE), emit


@compiled
def narrow_scratch(size: Number) -> Array:
    """Return (size,) uint16 of a thread's own, not filled, beginning at a cache line."""
    room = np.empty(size + 32, dtype=np.uint16)
    skipped = (-room.ctypes.data % 64) // 2
    return room[skipped : skipped + size]
