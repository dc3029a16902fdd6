# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the attention kernels of the GPU share: loads of rows, products, scores with bias, the dropout mask.

Everything works on tiles of one sequence, (rows, columns), and on several sequences at once, (sequences,
rows, columns), where each has its own slot: a product of three-dimensional tiles is one per slot, so that
no sequence meets another's numbers and the order of every sum is the same in any slot.
"""

import triton
import triton.language as tl

from recsys.kernels.attention.dropout import (
    HEAD_STEP,
    KEY_STEP,
    MIX_FIRST,
    MIX_SECOND,
    ROW_STEP,
    SEQUENCE_STEP,
)
from recsys.kernels.attention.schedule import BLOCK, FIELDS, SEQUENCE
from recsys.kernels.shared.triton_math import exp2_fma

_FIELDS, _SEQUENCE, _BLOCK = tl.constexpr(FIELDS), tl.constexpr(SEQUENCE), tl.constexpr(BLOCK)

_MIX_FIRST = tl.constexpr(MIX_FIRST)
_MIX_SECOND = tl.constexpr(MIX_SECOND)
_SEQUENCE_STEP = tl.constexpr(SEQUENCE_STEP)
_HEAD_STEP = tl.constexpr(HEAD_STEP)
_ROW_STEP = tl.constexpr(ROW_STEP)
_KEY_STEP = tl.constexpr(KEY_STEP)


@triton.jit
def load_task(tasks, i):
    """Sequence and block of task i of a schedule."""
    task = tasks + i * _FIELDS
    return tl.load(task + _SEQUENCE), tl.load(task + _BLOCK)


@triton.jit
def load_sequences(tasks, slot, used):
    """Sequences of short tasks `slot`, 0 where not `used`."""
    return tl.load(tasks + slot * _FIELDS + _SEQUENCE, mask=used, other=0)


@triton.jit
def flip(x):
    """Swap the last two axes."""
    return tl.trans(x) if len(x.shape) == 2 else tl.permute(x, (0, 2, 1))


@triton.jit
def product(a, b, into):
    """Compute a @ b in float32 and add it to `into`, if that is not None.

    float32 inputs are not rounded: those products run on the multiply-add pipes, which take both rows of an
    entry into registers. Rows of 128 do not fit, so they go in parts, which other warps take.
    """
    if into is None and a.dtype == tl.float32 and len(a.shape) == 2 and a.shape[1] > 64:
        parts: tl.constexpr = a.shape[1] // 32
        left = tl.permute(tl.reshape(a, (a.shape[0], parts, 32)), (1, 0, 2))
        right = tl.reshape(b, (parts, 32, b.shape[1]))
        return tl.sum(tl.dot(left, right, input_precision="ieee"), 0)
    else:
        return tl.dot(a, b, acc=into, input_precision="ieee")


@triton.jit
def row_offsets(rows, step, BLOCK_D: tl.constexpr):
    """Offsets (..., BLOCK_D) of whole rows that lie `step` elements apart."""
    return tl.expand_dims(rows.to(tl.int64) * step, -1) + tl.arange(0, BLOCK_D)


@triton.jit
def row_mask(inside, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Which entries of a tile exist: rows inside the sequence, columns inside the head."""
    return tl.expand_dims(inside, -1) & (tl.arange(0, BLOCK_D) < HEAD_DIM)


@triton.jit
def load_rows(base, rows, step, inside, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """Load a tile (..., BLOCK_D), with zeros outside; without MASKED all rows are known to exist."""
    pointers = base + row_offsets(rows, step, BLOCK_D)
    if MASKED:
        return tl.load(pointers, mask=row_mask(inside, HEAD_DIM, BLOCK_D), other=0.0)
    elif HEAD_DIM < BLOCK_D:
        every = tl.full(rows.shape, 1, tl.int1)
        return tl.load(pointers, mask=row_mask(every, HEAD_DIM, BLOCK_D), other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def load_masked(pointers, inside, MASKED: tl.constexpr):
    """Load one number per row, 0 outside; without MASKED all rows are known to exist."""
    return tl.load(pointers, mask=inside, other=0) if MASKED else tl.load(pointers)


@triton.jit
def _stir(word):
    """`dropout._stir`: good high bits."""
    word = (word ^ (word >> 16)) * _MIX_FIRST
    return (word ^ (word >> 15)) * _MIX_SECOND


@triton.jit
def _mix(word):
    """`dropout._mix`: good bits."""
    word = _stir(word)
    return word ^ (word >> 15)


@triton.jit
def query_words(seed, sequence, head, query):
    """The uint32 word of each query from which its keys' decisions follow, as in `dropout.keep_mask`.

    Args:
        seed: pointer to the int64 seed.
        sequence: index in the batch.
        head: index of the head.
        query: indices in the sequence, of a shape that goes with `sequence`.
    """
    number = tl.load(seed)
    word = _mix(number.to(tl.uint32) + sequence.to(tl.uint32) * _SEQUENCE_STEP)
    word = _mix((word ^ (number >> 32).to(tl.uint32)) + head.to(tl.uint32) * _HEAD_STEP)
    return _mix(word + query.to(tl.uint32) * _ROW_STEP)


@triton.jit
def keep(words, key, threshold):
    """Whether each weight is kept; words and key indices of broadcastable shapes."""
    return _stir(words + key.to(tl.uint32) * _KEY_STEP) >= threshold.to(tl.uint32, bitcast=True)


@triton.jit
def exponential(x, index, FMA_EVERY: tl.constexpr):
    """2^x, x finite; of blocks counted by `index`, each FMA_EVERY-th on the multiply-add pipes (0: none)."""
    if FMA_EVERY == 0:
        y = tl.exp2(x)
    elif index % FMA_EVERY == 0:
        y = exp2_fma(x)
    else:
        y = tl.exp2(x)
    return y
