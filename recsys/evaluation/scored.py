"""Ranks under any scores of the whole catalog, for models that are no inner product of two vectors."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.console.progress import track
from recsys.errors import ArgumentError
from recsys.evaluation.list_metrics import ListMetrics
from recsys.evaluation.popularity import combine_ranks, popularity_ranks
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.ranking_pass import RankTable, empty_ranks, user_batches
from recsys.evaluation.sampled import draw_negatives, rank_first
from recsys.evaluation.spans import Ints, distinct_items, expand_spans
from recsys.evaluation.targets import EvaluationTargets, PreparedLog, item_features_of

Scores = NDArray[np.float64]
ScoreFunction = Callable[[Ints, EvaluationTargets], Scores]


def rank_scored(
    score_fn: ScoreFunction,
    store: PreparedLog,
    targets: EvaluationTargets,
    protocol: Protocol,
    generator: np.random.Generator,
    *,
    list_ks: tuple[int, ...] = (),
    batch_rows: int = 256,
    progress: bool = True,
) -> RankTable:
    """Rank every target among the catalog, or among drawn negatives if the protocol says so.

    Args:
        score_fn: called with (b,) int64 rows, the first row of each user of a batch, and the targets;
            returns (b, V) scores.
        store: the prepared log.
        targets: the rows.
        protocol: gives the tie rule and the negatives.
        generator: source of the negatives.
        list_ks: cut-offs for the figures of the top lists; empty leaves the lists out.
        batch_rows: rows ranked at once.
        progress: whether a bar may be drawn.

    Raises:
        ArgumentError: scores of the wrong shape, or not finite.
    """
    kept, removed = empty_ranks(targets, protocol), empty_ranks(targets, protocol)
    sampled_popularity = empty_ranks(targets, protocol)
    counts = np.asarray(store.item_counts(), dtype=np.int64)
    features = item_features_of(store)
    asked = ("kept", "removed") if list_ks and not protocol.sampled else ()
    lists = {rule: ListMetrics(counts, list_ks, features) for rule in asked}
    for users in track(user_batches(targets.row_offsets, batch_rows), "Ranking", shown=progress):
        rows = np.arange(targets.row_offsets[users.start], targets.row_offsets[users.stop])
        first_rows = targets.first_rows[users]
        scores = np.asarray(score_fn(first_rows, targets))
        if scores.shape != (len(first_rows), store.n_items):
            raise ArgumentError(
                f"score_fn returned shape {scores.shape}: give a score of each of the {store.n_items} items "
                f"for each of the {len(first_rows)} rows asked for"
            )
        if not np.all(np.isfinite(scores)):
            raise ArgumentError("a score is not finite: the model gives NaN or infinity")
        place = np.repeat(
            np.arange(len(first_rows)), np.diff(targets.row_offsets[users.start : users.stop + 1])
        )
        wanted = targets.target[rows]
        if protocol.n_negatives is not None:
            negatives = draw_negatives(store, targets, rows, protocol.n_negatives, generator)
            candidates = np.concatenate([wanted[:, None], negatives], axis=1)
            removed[rows] = rank_first(scores[place[:, None], candidates], protocol.ties)
            sampled_popularity[rows] = rank_first(counts[candidates], protocol.ties)
            continue
        if lists:
            starts, ends = targets.history_start[first_rows], targets.history_end[first_rows]
            places, bounds = expand_spans(starts, ends)
            history = store.items[places].astype(np.int64), bounds
            lists["kept"].update(_best(scores, max(list_ks)), history)
            unseen = scores.astype(np.float64)
            unseen[np.repeat(np.arange(len(scores)), np.diff(bounds)), history[0]] = -np.inf
            lists["removed"].update(_best(unseen, max(list_ks)), history)
        scores = scores[place]
        own = scores[np.arange(len(rows)), wanted]
        greater = np.count_nonzero(scores > own[:, None], axis=1)
        equal = np.count_nonzero(scores == own[:, None], axis=1) - 1
        kept[rows] = combine_ranks(greater, equal, protocol.ties)
        seen, offsets = distinct_items(
            store.items, targets.history_start[rows], targets.history_end[rows], store.n_items
        )
        owner = np.repeat(np.arange(len(rows)), np.diff(offsets))
        other = seen != wanted[owner]
        owner, seen = owner[other], seen[other]
        greater -= np.bincount(owner[scores[owner, seen] > own[owner]], minlength=len(rows))
        equal -= np.bincount(owner[scores[owner, seen] == own[owner]], minlength=len(rows))
        removed[rows] = combine_ranks(greater, equal, protocol.ties)
    if protocol.sampled:
        return RankTable(model={"removed": removed}, popularity={"removed": sampled_popularity})
    return RankTable(
        model={"kept": kept, "removed": removed},
        popularity=popularity_ranks(store, targets, ties=protocol.ties)._asdict(),
        lists={rule: totals.result() for rule, totals in lists.items()},
    )


def _best(scores: Scores, k: int) -> Ints:
    """(b, k) items of the largest scores, of equal ones the lower id first; -1 for one of -infinity."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)
