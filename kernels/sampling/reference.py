"""Negative draws in plain PyTorch: the definition, on any device, without waiting for it.

The word of (seed, row, draw, attempt) is mix(key(seed, row) + (draw * 5 + attempt + 1) * gamma), see
`recsys.kernels.shared.random_words`. A draw with a target to avoid is

- uniform: an item of the V - 1 others, by shifting: one attempt, q(i | t) = 1 / (V - 1);
- by popularity: the first of `TRIES` alias draws that is not the target; if all are, an item of the V - 1
  others uniformly. So q(i | t) = p_i (1 + p_t + ... + p_t^(TRIES - 1)) + p_t^TRIES / (V - 1).

Legend: N rows, K draws each, V items.
"""

import torch
from torch import Tensor

from recsys.kernels.sampling.tables import NegativeSampler
from recsys.kernels.shared.random_words import ATTEMPT_STEP, mix, row_keys, scaled, signed

__all__ = ["SHARED_ROW", "TRIES", "WORDS", "draw_negatives", "draw_shared", "probability"]

TRIES = 4
WORDS = TRIES + 1
"""Words set aside for a draw."""

SHARED_ROW = 1 << 62
"""The row whose stream shared draws come from; no batch has as many rows."""


def draw_negatives(
    sampler: NegativeSampler, targets: Tensor, count: int, seed: int, first_row: int
) -> Tensor:
    """Draw `count` items for each row, none of them the row's target: (N, K) int64."""
    rows = torch.arange(len(targets), dtype=torch.int64, device=targets.device) + first_row
    keys = row_keys(seed, rows)[:, None]
    draws = torch.arange(count, dtype=torch.int64, device=targets.device)
    avoided = targets[:, None]
    if sampler.is_uniform:
        return _others(_word(keys, draws, 0), sampler.n_items, avoided)
    found = _by_table(sampler, _word(keys, draws, 0))
    for attempt in range(1, TRIES):
        found = torch.where(found == avoided, _by_table(sampler, _word(keys, draws, attempt)), found)
    last = _others(_word(keys, draws, TRIES), sampler.n_items, avoided)
    return torch.where(found == avoided, last, found)


def draw_shared(sampler: NegativeSampler, count: int, seed: int, device: torch.device) -> Tensor:
    """Draw `count` items for all rows together: (K,) int64."""
    key = row_keys(seed, torch.full((), SHARED_ROW, dtype=torch.int64, device=device))
    words = _word(key, torch.arange(count, dtype=torch.int64, device=device), 0)
    return scaled(words, sampler.n_items)[0] if sampler.is_uniform else _by_table(sampler, words)


def probability(sampler: NegativeSampler, ids: Tensor, targets: Tensor | None) -> Tensor:
    """Return q(i), or q(i | t) for each row's target; float64, shape of `ids`."""
    if sampler.is_uniform:
        others = sampler.n_items - (0 if targets is None else 1)
        return torch.full(ids.shape, 1.0 / others, dtype=torch.float64, device=ids.device)
    own = sampler.probability[ids]
    if targets is None:
        return own
    avoided = sampler.probability[targets][:, None]
    again = sum((avoided**tries for tries in range(1, TRIES)), torch.ones_like(avoided))
    return own * again + avoided**TRIES / (sampler.n_items - 1)


def _word(keys: Tensor, draws: Tensor, attempt: int) -> Tensor:
    return mix(keys + (draws * WORDS + attempt + 1) * signed(ATTEMPT_STEP))


def _others(words: Tensor, n_items: int, avoided: Tensor) -> Tensor:
    """An item of the n_items - 1 that are not `avoided`."""
    place = scaled(words, n_items - 1)[0]
    return place + (place >= avoided).to(torch.int64)


def _by_table(sampler: NegativeSampler, words: Tensor) -> Tensor:
    slot, rest = scaled(words, sampler.n_items)
    return torch.where(rest < sampler.threshold[slot], slot, sampler.alias[slot])
