"""The one pass over the users: hidden states in, the ranks of all targets and the lists' statistics out.

Nothing here averages, so that passes over parts of the users can be gathered and summarized once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.console.progress import track
from recsys.errors import ArgumentError
from recsys.evaluation.list_metrics import ListMetrics
from recsys.evaluation.metrics import Ranks
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import Protocol, Ties
from recsys.evaluation.sampled import draw_negatives, rank_first, ranks_among
from recsys.evaluation.sharing import Sharing, whole
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets, PreparedLog, item_features_of
from recsys.evaluation.window_bias import BiasFunction, ranks_with_bias, top_ids_with_bias

HiddenFunction = Callable[[Ints, EvaluationTargets], Tensor]


@dataclass(kw_only=True, slots=True)
class RankTable:
    """Ranks of the targets under a model and under popularity; keys are "kept" and "removed".

    A sampled protocol fills "removed" alone: its negatives are never items of the training history.

    Attributes:
        model: (R,) ranks by seen rule.
        popularity: (R,) ranks by seen rule.
        lists: figures of the lists by seen rule; empty if lists were not asked for.
    """

    model: dict[str, Ranks]
    popularity: dict[str, Ranks]
    lists: dict[str, dict[str, float]] = field(default_factory=dict)


def user_batches(row_offsets: Ints, batch_rows: int) -> list[slice]:
    """Cut counted users into consecutive slices of at most `batch_rows` rows, at least one user each."""
    batches = []
    first, n_users = 0, len(row_offsets) - 1
    while first < n_users:
        last = int(np.searchsorted(row_offsets, row_offsets[first] + batch_rows, side="right")) - 1
        last = max(last, first + 1)
        batches.append(slice(first, last))
        first = last
    return batches


def rank_catalog(
    hidden_fn: HiddenFunction,
    item_weight: Tensor,
    store: PreparedLog,
    targets: EvaluationTargets,
    protocol: Protocol,
    *,
    bias_fn: BiasFunction | None = None,
    list_ks: tuple[int, ...] = (),
    batch_rows: int = 1024,
    progress: bool = True,
    sharing: Sharing | None = None,
) -> RankTable:
    """Rank every target among the whole catalog, with seen items kept and removed, in one pass.

    Args:
        hidden_fn: called with (b,) int64 rows, the first row of each user of a batch, and the targets;
            returns their (b, d) states.
        item_weight: (V, d) item vectors.
        store: the prepared log.
        targets: the rows.
        protocol: gives the tie rule.
        bias_fn: gives what is added to the scores of items of a batch's windows; None adds nothing.
        list_ks: cut-offs for the figures of the top lists; empty leaves the lists out.
        batch_rows: rows ranked at once.
        progress: whether a bar may be drawn.
        sharing: the processes that rank a part each; all get the ranks of all. Lists are then left out.
    """
    from recsys.kernels.ranking import top_k
    from recsys.kernels.shared.histories import copy_histories

    device = item_weight.device
    kept, removed = empty_ranks(targets, protocol), empty_ranks(targets, protocol)
    counts = np.asarray(store.item_counts(), dtype=np.int64)
    features = item_features_of(store)
    lists = {seen: ListMetrics(counts, list_ks, features) for seen in ("kept", "removed")} if list_ks else {}
    batches = user_batches(targets.row_offsets, batch_rows)
    if sharing is not None:
        batches = batches[sharing.rank :: sharing.size]
    for users in track(batches, "Ranking", shown=progress):
        first_rows = targets.first_rows[users]
        rows = slice(int(targets.row_offsets[users.start]), int(targets.row_offsets[users.stop]))
        states = _states(hidden_fn, first_rows, targets, item_weight)
        rows_per_user = np.diff(targets.row_offsets[users.start : users.stop + 1])
        # With repeats, in the log's order: the kernels exclude an item once however often it is named.
        seen = copy_histories(store.items, targets.history_start[first_rows], targets.history_end[first_rows])
        window = None if bias_fn is None else bias_fn(first_rows, targets)
        repeated_states, repeated_seen, repeated_window = states, seen, window
        if len(first_rows) != rows.stop - rows.start:
            place = np.repeat(np.arange(len(first_rows)), rows_per_user)
            repeated_states = states[torch.from_numpy(place).to(device)]
            repeated_seen = copy_histories(
                store.items, targets.history_start[rows], targets.history_end[rows]
            )
            repeated_window = None if window is None else window.repeated(place)
        if repeated_window is not None:
            kept[rows], removed[rows] = ranks_with_bias(
                repeated_states,
                item_weight,
                targets.target[rows],
                repeated_seen,
                repeated_window,
                protocol.ties,
            )
        else:
            kept[rows], removed[rows] = _ranks(
                repeated_states, item_weight, targets.target[rows], repeated_seen, protocol.ties
            )
        if lists:
            k = min(max(list_ks), len(item_weight))
            lists["kept"].update(
                top_k(states, item_weight, k).ids.cpu().numpy()
                if window is None
                else top_ids_with_bias(states, item_weight, window, k),
                seen,
            )
            without_seen = top_k(states, item_weight, k, _tensors(seen, device)).ids.cpu().numpy()
            lists["removed"].update(without_seen, seen)
    return RankTable(
        model={"kept": whole(kept, sharing), "removed": whole(removed, sharing)},
        popularity=popularity_ranks(store, targets, ties=protocol.ties)._asdict(),
        lists={seen: totals.result() for seen, totals in lists.items()},
    )


def _ranks(
    states: Tensor, item_weight: Tensor, target: Ints, seen: tuple[Ints, Ints], ties: Ties
) -> tuple[Ranks, Ranks]:
    """Ranks kept and removed by inner products alone."""
    from recsys.kernels.ranking import rank_of_target

    device = item_weight.device
    wanted = torch.from_numpy(target).to(device)
    ranks = rank_of_target(states, item_weight, wanted, _tensors(seen, device), ties=ties)
    return ranks.kept.cpu().numpy(), ranks.removed.cpu().numpy()


def rank_sampled(
    hidden_fn: HiddenFunction,
    item_weight: Tensor,
    store: PreparedLog,
    targets: EvaluationTargets,
    protocol: Protocol,
    generator: np.random.Generator,
    *,
    bias_fn: BiasFunction | None = None,
    batch_rows: int = 1024,
    progress: bool = True,
) -> RankTable:
    """Rank every target among drawn negatives; arguments as in `rank_catalog`.

    Args:
        hidden_fn: as in `rank_catalog`.
        item_weight: (V, d) item vectors.
        store: the prepared log.
        targets: the rows.
        protocol: gives the number of negatives and the tie rule.
        generator: source of the negatives.
        bias_fn: as in `rank_catalog`.
        batch_rows: rows ranked at once.
        progress: whether a bar may be drawn.
    """
    if protocol.n_negatives is None:
        raise ArgumentError(f"protocol '{protocol.name}' draws no negatives: rank the catalog instead")
    model, popularity = empty_ranks(targets, protocol), empty_ranks(targets, protocol)
    counts = np.asarray(store.item_counts(), dtype=np.int64)
    for users in track(user_batches(targets.row_offsets, batch_rows), "Ranking", shown=progress):
        rows = np.arange(targets.row_offsets[users.start], targets.row_offsets[users.stop])
        states = _states(hidden_fn, targets.first_rows[users], targets, item_weight)
        place = np.repeat(np.arange(len(states)), np.diff(targets.row_offsets[users.start : users.stop + 1]))
        negatives = draw_negatives(store, targets, rows, protocol.n_negatives, generator)
        wanted = targets.target[rows]
        states = states[torch.from_numpy(place).to(states.device)]
        bias = None
        if bias_fn is not None:
            window = bias_fn(targets.first_rows[users], targets).repeated(place)
            own = window.ids == wanted[window.rows()]
            bias = np.zeros(len(rows), dtype=np.float32)
            bias[window.rows()[own]] = window.bias[own]
        model[rows] = ranks_among(states, item_weight, wanted, negatives, protocol.ties, bias)
        candidates = np.concatenate([wanted[:, None], negatives], axis=1)
        popularity[rows] = rank_first(counts[candidates], protocol.ties)
    return RankTable(model={"removed": model}, popularity={"removed": popularity})


def empty_ranks(targets: EvaluationTargets, protocol: Protocol) -> Ranks:
    """(R,) zeros of the type that the tie rule needs."""
    return np.zeros(targets.n_rows, np.float64 if protocol.ties == "average" else np.int64)


def _states(
    hidden_fn: HiddenFunction, first_rows: Ints, targets: EvaluationTargets, item_weight: Tensor
) -> Tensor:
    states = hidden_fn(first_rows, targets).to(item_weight.device, item_weight.dtype)
    if states.shape != (len(first_rows), item_weight.shape[1]):
        raise ArgumentError(
            f"hidden_fn returned shape {tuple(states.shape)}: give one state of width "
            f"{item_weight.shape[1]} for each of the {len(first_rows)} rows asked for"
        )
    return states


def _tensors(jagged: tuple[Ints, Ints], device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(jagged[0]).to(device), torch.from_numpy(jagged[1]).to(device)
