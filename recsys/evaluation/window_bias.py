"""Ranks and lists where the items of a user's window have a bias of their own, which no item vector holds.

What is outside the window is ranked by the kernels as ever; the window's few items are scored one by one and
put beside it. A target that is itself in the window competes with its bias on, and its row is scored whole.

Legend: b rows, V items, d width, P pairs of a row and an item of its window.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.window_bias import WindowBias
from recsys.evaluation.metrics import Ranks
from recsys.evaluation.popularity import combine_ranks
from recsys.evaluation.protocol import Ties
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets

__all__ = ["BiasFunction", "ranks_with_bias", "top_ids_with_bias", "window_scores"]

_SCORES = 1 << 24
"""Scores of whole rows that are held at once."""


BiasFunction = Callable[[Ints, EvaluationTargets], WindowBias]
"""Called with (b,) int64 rows, the first row of each user of a batch, and the targets."""


def ranks_with_bias(
    states: Tensor,
    item_weight: Tensor,
    target: Ints,
    history: tuple[Ints, Ints],
    window: WindowBias,
    ties: Ties,
) -> tuple[Ranks, Ranks]:
    """Rank the targets with seen items kept and removed.

    Args:
        states: (b, d).
        item_weight: (V, d).
        target: (b,) int64.
        history: ids and offsets (b+1,) of the items seen, repeats allowed.
        window: of the same rows.
        ties: the tie rule.

    Returns:
        Ranks kept and removed, as `rank_of_target` gives them.
    """
    from recsys.kernels.ranking import rank_of_target

    device = item_weight.device
    wanted = torch.from_numpy(target).to(device)

    def without(ids: Ints, offsets: Ints) -> Ranks:
        """Ranks among all but some items."""
        excluded = torch.from_numpy(ids).to(device), torch.from_numpy(offsets).to(device)
        found: Ranks = rank_of_target(states, item_weight, wanted, excluded, ties=ties).removed.cpu().numpy()
        return found

    owner = window.rows()
    scores = window_scores(states, item_weight, window)
    own = _pair_scores(states, item_weight, torch.arange(len(states), device=device), wanted)
    own = own[torch.from_numpy(owner).to(device)]
    mine = window.ids == target[owner]
    ahead, level = ((x.cpu().numpy() & ~mine) for x in (scores > own, scores == own))
    greater, equal = (np.bincount(owner[x], minlength=len(target)) for x in (ahead, level))
    kept = without(window.ids, window.offsets) + (combine_ranks(greater, equal, ties) - 1)
    removed = without(*history)
    again = np.flatnonzero(np.bincount(owner[mine], minlength=len(target)) > 0)
    chunk = max(1, _SCORES // len(item_weight))
    for first in range(0, len(again), chunk):
        rows = again[first : first + chunk]
        kept[rows], removed[rows] = _whole_rows(
            states[torch.from_numpy(rows).to(device)],
            item_weight,
            target[rows],
            WindowBias(*history, np.zeros(len(history[0]), np.float32)).repeated(rows),
            window.repeated(rows),
            ties,
        )
    return kept, removed


def top_ids_with_bias(states: Tensor, item_weight: Tensor, window: WindowBias, k: int) -> Ints:
    """The k best items of each row, (b, k) int64, -1 where there are no more."""
    from recsys.kernels.ranking import top_k

    device = item_weight.device
    excluded = torch.from_numpy(window.ids).to(device), torch.from_numpy(window.offsets).to(device)
    rest = top_k(states, item_weight, k, excluded)
    laid, ids = window.laid_out(window_scores(states, item_weight, window).double().cpu().numpy())
    every = np.concatenate((rest.scores.double().cpu().numpy(), laid), axis=1)
    names = np.concatenate((rest.ids.cpu().numpy(), ids), axis=1)
    # Fillers last, then by score, then by id.
    order = np.lexsort((names, -every, names < 0), axis=1)[:, :k]
    return np.take_along_axis(names, order, axis=1)


def window_scores(states: Tensor, item_weight: Tensor, window: WindowBias) -> Tensor:
    """(P,) scores of the windows' items with their biases."""
    device = item_weight.device
    rows, ids = (torch.from_numpy(x).to(device) for x in (window.rows(), window.ids))
    scores = _pair_scores(states, item_weight, rows, ids)
    return scores + torch.from_numpy(window.bias).to(device, scores.dtype)


def _pair_scores(states: Tensor, item_weight: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """(P,) inner products, in blocks that fit a cache."""
    out = states.new_empty(len(rows))
    block = max(1, (1 << 20) // max(1, states.shape[1]))
    for first in range(0, len(rows), block):
        part = slice(first, first + block)
        out[part] = (states[rows[part]] * item_weight[items[part]]).sum(-1)
    return out


def _whole_rows(
    states: Tensor, item_weight: Tensor, target: Ints, history: WindowBias, window: WindowBias, ties: Ties
) -> tuple[Ranks, Ranks]:
    """Ranks kept and removed by the scores of all items."""
    scores = states @ item_weight.T
    device, rows = scores.device, np.arange(len(target))
    added = torch.from_numpy(window.bias).to(device, scores.dtype)
    scores[torch.from_numpy(window.rows()).to(device), torch.from_numpy(window.ids).to(device)] += added
    wanted = torch.from_numpy(rows).to(device), torch.from_numpy(target).to(device)
    own = scores[wanted][:, None].clone()
    found = []
    for _ in range(2):
        greater = (scores > own).sum(1).cpu().numpy()
        equal = (scores == own).sum(1).cpu().numpy() - 1
        found.append(combine_ranks(greater, equal, ties))
        # For the second time round: without what was seen, but for the target.
        seen = torch.from_numpy(history.rows()).to(device), torch.from_numpy(history.ids).to(device)
        scores[seen] = -torch.inf
        scores[wanted] = own[:, 0]
    return found[0], found[1]
