"""Negative draws on the CPU: the words of `reference`, a row at a time, on several threads."""

import numpy as np
import torch
from torch import Tensor

from recsys.kernels.sampling.reference import SHARED_ROW, TRIES, WORDS
from recsys.kernels.sampling.tables import NegativeSampler
from recsys.kernels.shared.random_words import ATTEMPT_STEP, MIX_FIRST, MIX_SECOND, ROW_STEP
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import Array, Number, compiled, next_task

__all__ = ["draw_negatives", "draw_shared"]

BLOCK_N = 64
"""Rows per task."""

STEPS = 20
"""Elementary steps of `threads_for` per draw."""

# numba makes float64 of an int64 and an uint64 together: every number of the words is an uint64.
_FIRST, _SECOND = np.uint64(MIX_FIRST), np.uint64(MIX_SECOND)
_ATTEMPT, _ROW = np.uint64(ATTEMPT_STEP), np.uint64(ROW_STEP)
_HALF = np.uint64(0xFFFFFFFF)
_TRIES, _WORDS, _ONE = np.uint64(TRIES), np.uint64(WORDS), np.uint64(1)
_R27, _R30, _R31, _R32 = (np.uint64(bits) for bits in (27, 30, 31, 32))


def draw_negatives(
    sampler: NegativeSampler, targets: Tensor, count: int, seed: int, first_row: int
) -> Tensor:
    """Draw `count` items for each row, none of them the row's target: (N, K) int64."""
    return _draw(sampler, targets.contiguous().numpy(), count, seed, first_row)


def draw_shared(sampler: NegativeSampler, count: int, seed: int, device: torch.device) -> Tensor:
    """Draw `count` items for all rows together: (K,) int64."""
    return _draw(sampler, np.full(1, -1), count, seed, SHARED_ROW)[0].to(device)


def _draw(sampler: NegativeSampler, targets: Array, count: int, seed: int, first_row: int) -> Tensor:
    out = torch.empty(len(targets), count, dtype=torch.int64)
    tasks = -(-len(targets) // BLOCK_N)
    launch(
        draw_worker,
        threads_for(tasks, STEPS * out.numel()),
        targets,
        np.uint64(seed & (2**64 - 1)),
        np.uint64(first_row),
        np.uint64(sampler.n_items),
        sampler.threshold.numpy(),
        sampler.alias.numpy(),
        np.int64(count),
        out.view(-1).numpy(),
    )
    return out


@compiled
def _mix(word: Number) -> Number:
    word = (word ^ (word >> _R30)) * _FIRST
    word = (word ^ (word >> _R27)) * _SECOND
    return word ^ (word >> _R31)


@compiled
def _scaled(word: Number, n: Number) -> Number:
    return ((word >> _R32) * n + (((word & _HALF) * n) >> _R32)) >> _R32


@compiled
def _other(word: Number, n: Number, target: Number) -> Number:
    place = np.int64(_scaled(word, n - _ONE))
    return place + 1 if place >= target else place


@compiled
def draw_worker(
    slot: Number,
    queue: Array,
    targets: Array,
    seed: Number,
    first_row: Number,
    n: Number,
    threshold: Array,
    alias: Array,
    count: Number,
    out: Array,
) -> None:
    """Draw for tasks of `BLOCK_N` rows; a target of -1 avoids nothing."""
    uniform = len(threshold) == 0
    start = _mix(seed + _ATTEMPT)
    while True:
        first = next_task(queue) * BLOCK_N
        if first >= len(targets):
            return
        for row in range(first, min(first + BLOCK_N, len(targets))):
            target = targets[row]
            key = _mix((first_row + np.uint64(row)) * _ROW + start)
            for draw in range(count):
                state = key + (np.uint64(draw) * _WORDS + _ONE) * _ATTEMPT
                word = _mix(state)
                if uniform:
                    found = np.int64(_scaled(word, n)) if target < 0 else _other(word, n, target)
                else:
                    found = target
                    for _ in range(TRIES):
                        place = np.int64(_scaled(word, n))
                        rest = np.int64((word * n) >> _R32)
                        found = place if rest < threshold[place] else alias[place]
                        state += _ATTEMPT
                        word = _mix(state)
                        if found != target:
                            break
                    if found == target:
                        found = _other(word, n, target)
                out[row * count + draw] = found
