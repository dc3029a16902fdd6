"""Evaluate a model on a prepared log: one pass over the users, then every figure that the report shows."""

import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.datasets.times.local_times import local_hours
from recsys.errors import ArgumentError, DataError
from recsys.evaluation.bootstrap import confidence_intervals
from recsys.evaluation.card import protocol_card
from recsys.evaluation.metrics import (
    DEFAULT_KS,
    LARGEST_K,
    Floats,
    Ranks,
    check_draws,
    check_ks,
    mean_metrics,
    per_user_metrics,
    serendipity,
)
from recsys.evaluation.protocol import Protocol, get_protocol
from recsys.evaluation.ranking_pass import HiddenFunction, RankTable, rank_catalog, rank_sampled
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.scored import ScoreFunction, rank_scored
from recsys.evaluation.sharing import Sharing
from recsys.evaluation.slices import slice_metrics, slice_rows
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import (
    EvaluationTargets,
    PreparedLog,
    Split,
    item_features_of,
    select_targets,
)
from recsys.evaluation.window_bias import BiasFunction

BIAS_NOTE = "The model adds a learned bias to the scores of items in the user's window."


def evaluate_hidden(
    hidden_fn: HiddenFunction,
    item_weight: Tensor,
    store: PreparedLog,
    *,
    bias_fn: BiasFunction | None = None,
    split: Split = "test",
    protocol: str | Protocol = "default",
    ks: Sequence[int] = DEFAULT_KS,
    batch_rows: int = 1024,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
    users: Ints | None = None,
    lists: bool = True,
    resamples: int = 1000,
    encoder: str = "unknown",
    sharing: Sharing | None = None,
) -> EvaluationResult:
    """Rank the split's targets by the inner product of hidden states and item vectors, and report.

    Args:
        hidden_fn: called with (b,) int64 rows and the `EvaluationTargets`; returns the (b, d) state of the
            user of each row, read from the events history_start[row]:history_end[row] (and, if the model
            knows the time of the request, that of request_position[row]). It is asked for the first row of
            each user only: a user's rows share the state.
        item_weight: (V, d) item vectors; the dtype in which scores are computed.
        store: the prepared log.
        bias_fn: called as hidden_fn is; returns what is added to the scores of items of the users' windows.
            None adds nothing.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        batch_rows: rows ranked at once.
        device: where to rank; None stays with item_weight.
        seed: of the bootstrap, and of sampled users and negatives.
        progress: whether a bar may be drawn (on a terminal, past two seconds).
        users: (M,) int64 users to consider; None for everyone.
        lists: whether to make top lists for coverage, novelty and what else lists tell, a second and third
            product over the catalog.
        resamples: bootstrap resamples; 0 leaves the intervals out.
        encoder: the model's name in the report.
        sharing: processes that call this together, rank a part of the users each and get the report of all;
            without lists and under a protocol that ranks the catalog.

    Returns:
        `EvaluationResult`.

    Raises:
        ArgumentError: an argument does not fit, or the model gives scores that are not finite.
        DataError: the split leaves nobody to count.
    """
    if batch_rows < 1:
        raise ArgumentError(f"batch_rows={batch_rows} must be at least 1")
    if item_weight.dim() != 2 or item_weight.shape[0] != store.n_items:
        raise ArgumentError(
            f"item_weight has shape {tuple(item_weight.shape)}: give one vector for each of the "
            f"{store.n_items} items of the dataset"
        )

    if sharing is not None and (lists or get_protocol(protocol).sampled):
        raise ArgumentError(
            "sharing= ranks the catalog and makes no lists: pass lists=False, and no sampled protocol"
        )

    def rank(
        targets: EvaluationTargets, rules: Protocol, cuts: tuple[int, ...], negatives: np.random.Generator
    ) -> RankTable:
        weight = item_weight.detach()
        weight = weight if device is None else weight.to(device)
        if rules.sampled:
            return rank_sampled(
                hidden_fn,
                weight,
                store,
                targets,
                rules,
                negatives,
                bias_fn=bias_fn,
                batch_rows=batch_rows,
                progress=progress,
            )
        return rank_catalog(
            hidden_fn,
            weight,
            store,
            targets,
            rules,
            bias_fn=bias_fn,
            list_ks=cuts if lists else (),
            batch_rows=batch_rows,
            progress=progress,
            sharing=sharing,
        )

    result = evaluate_ranks(
        rank, store, split, protocol, ks, seed=seed, users=users, resamples=resamples, encoder=encoder
    )
    if bias_fn is not None:
        result.protocol["notes"].append(BIAS_NOTE)
    return result


def evaluate_scores(
    score_fn: ScoreFunction,
    store: PreparedLog,
    *,
    split: Split = "test",
    protocol: str | Protocol = "default",
    ks: Sequence[int] = DEFAULT_KS,
    batch_rows: int = 256,
    seed: int = 0,
    progress: bool = True,
    users: Ints | None = None,
    lists: bool = False,
    resamples: int = 1000,
    encoder: str = "unknown",
) -> EvaluationResult:
    """Rank the split's targets by given scores of the whole catalog, and report.

    Args:
        score_fn: called with (b,) int64 rows and the `EvaluationTargets`; returns (b, V) scores for the user
            of each row. It is asked for the first row of each user only.
        store: the prepared log.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        batch_rows: rows ranked at once.
        seed: of the bootstrap, and of sampled users and negatives.
        progress: whether a bar may be drawn.
        users: (M,) int64 users to consider; None for everyone.
        lists: whether to make top lists, by sorting the scores of every user twice.
        resamples: bootstrap resamples; 0 leaves the intervals out.
        encoder: the model's name in the report.

    Raises:
        ArgumentError: an argument does not fit, or the model gives scores that are not finite.
        DataError: the split leaves nobody to count.
    """
    if batch_rows < 1:
        raise ArgumentError(f"batch_rows={batch_rows} must be at least 1")

    def rank(
        targets: EvaluationTargets, rules: Protocol, cuts: tuple[int, ...], negatives: np.random.Generator
    ) -> RankTable:
        return rank_scored(
            score_fn,
            store,
            targets,
            rules,
            negatives,
            list_ks=cuts if lists else (),
            batch_rows=batch_rows,
            progress=progress,
        )

    return evaluate_ranks(
        rank, store, split, protocol, ks, seed=seed, users=users, resamples=resamples, encoder=encoder
    )


def evaluate_ranks(
    rank: Callable[[EvaluationTargets, Protocol, tuple[int, ...], np.random.Generator], RankTable],
    store: PreparedLog,
    split: Split,
    protocol: str | Protocol,
    ks: Sequence[int],
    *,
    seed: int = 0,
    users: Ints | None = None,
    resamples: int = 0,
    encoder: str = "unknown",
) -> EvaluationResult:
    """Choose the targets, have them ranked, and report.

    Args:
        rank: called with the targets, the protocol, the cut-offs and a source of negatives; returns the ranks
            of all rows.
        store: the prepared log.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        seed: of the bootstrap, and of sampled users and negatives.
        users: (M,) int64 users to consider; None for everyone.
        resamples: bootstrap resamples; 0 leaves the intervals out.
        encoder: the model's name in the report.

    Raises:
        ArgumentError: an argument does not fit.
        DataError: the split leaves nobody to count.
    """
    began = time.perf_counter()
    rules = get_protocol(protocol)
    cuts, seed, resamples = check_ks(ks), check_draws("seed", seed), check_draws("resamples", resamples)
    if rules.warning:
        warnings.warn(rules.warning, stacklevel=3)
    # One stream per purpose: intervals do not change with the number of negatives drawn before.
    streams = np.random.SeedSequence(seed).spawn(3)
    user_draws, negative_draws, bootstrap_draws = (np.random.default_rng(stream) for stream in streams)
    targets = _choose_targets(store, split, rules, users, user_draws)
    if targets.n_users == 0:
        raise DataError(
            f"the {split} split has no user with a history and a target: prepare the log otherwise"
        )
    with torch.inference_mode():
        table = rank(targets, rules, cuts, negative_draws)
    result = summarize(table, targets, store, rules, cuts, bootstrap_draws, resamples=resamples, seed=seed)
    result.encoder = encoder
    result.seconds = time.perf_counter() - began
    return result


def summarize(
    table: RankTable,
    targets: EvaluationTargets,
    store: PreparedLog,
    protocol: Protocol,
    ks: Sequence[int],
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> EvaluationResult:
    """Turn ranks into a report; the ranks may have been gathered from several passes.

    Args:
        table: ranks of every row.
        targets: the rows.
        store: the prepared log.
        protocol: the choices.
        ks: cut-offs.
        generator: source of the bootstrap's draws.
        resamples: bootstrap resamples; 0 leaves the intervals out.
        seed: noted on the card.
    """

    def per_user(ranks: Ranks) -> dict[str, Floats]:
        return per_user_metrics(ranks, targets.row_offsets, ks, ndcg_ideal=protocol.ndcg_ideal)

    if protocol.seen_targets == "missed":
        for ranks in (table.model, table.popularity):
            # Behind any cut-off there may be.
            ranks["removed"] = np.where(targets.repeated, LARGEST_K + 1, ranks["removed"])
    headline = protocol.seen if protocol.seen in table.model else "removed"
    users = per_user(table.model[headline])
    means = {
        seen: mean_metrics(users if seen == headline else per_user(ranks))
        for seen, ranks in table.model.items()
    }
    lists = {
        seen: figures | serendipity(table.model[seen], table.popularity[seen], targets.row_offsets, ks)
        for seen, figures in table.lists.items()
    }
    rows = slice_rows(targets, np.asarray(store.item_counts()), local_hours(store, targets.request_position))
    return EvaluationResult(
        dataset=store.name,
        encoder="unknown",
        split=targets.split,
        users=targets.n_users,
        rows=targets.n_rows,
        metrics=means[headline],
        metrics_seen_kept=means.get("kept", {}),
        metrics_seen_removed=means.get("removed", {}),
        popularity={seen: mean_metrics(per_user(ranks)) for seen, ranks in table.popularity.items()},
        confidence=confidence_intervals(users, generator, resamples=resamples) if resamples else {},
        slices=slice_metrics(table.model[headline], targets.user, rows),
        lists=lists,
        protocol=protocol_card(
            protocol,
            store.meta,
            targets,
            n_items=store.n_items,
            seed=seed,
            features=item_features_of(store) if lists else None,
        ),
        per_user=users,
        user=targets.user[targets.first_rows],
        ranks=table.model,
        seconds=0.0,
        digest=getattr(store, "fingerprint", None),
        headline=headline,
        row_user=targets.user,
        slice_rows=rows,
    )


def _choose_targets(
    store: PreparedLog, split: Split, protocol: Protocol, users: Ints | None, generator: np.random.Generator
) -> EvaluationTargets:
    def select(chosen: Ints | None) -> EvaluationTargets:
        return select_targets(
            store,
            split,
            protocol.targets,
            drop_seen_targets=protocol.seen_targets == "dropped",
            min_events=protocol.min_events,
            users=chosen,
        )

    targets = select(users)
    limits = [protocol.max_users, protocol.max_valid_users if split == "valid" else None]
    most = min((limit for limit in limits if limit is not None), default=targets.n_users)
    if targets.n_users <= most:
        return targets
    return select(generator.choice(targets.user[targets.first_rows], size=most, replace=False))
