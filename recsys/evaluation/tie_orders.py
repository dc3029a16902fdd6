"""Averages over the orders that tied events could have had: where times are equal, the file's is chance.

A user's last events often share a timestamp (44% of the users of ml-100k), and then which of them is held
out, and in which order the model reads the others, is the file's doing. A drawn order

- puts in the place of the target one of the events of its time that the model did not learn from, which under
  leave-one-out are the test and the validation event, all equally likely;
- shuffles the other events of that time that precede it.

Events of that time that were trained on stay in the history: as targets they would flatter the model. Users
whose ties reach so far are counted on the card; other targets for them take another preparation and training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ArgumentError
from recsys.evaluation.bootstrap import confidence_intervals
from recsys.evaluation.metrics import Floats, check_draws
from recsys.evaluation.protocol import Protocol, get_protocol
from recsys.evaluation.result import EvaluationResult, Metrics
from recsys.evaluation.slices import Slices
from recsys.evaluation.spans import Ints, expand_spans
from recsys.evaluation.targets import Split


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """The events tied with each target; positions are absolute, one row per user with a target.

    Attributes:
        first: (U,) int64 first event of the target's time.
        free: (U,) int64 first of them that is not a training event.
        target: (U,) int64 the target's place.
        end: (U,) int64 past the last event of the target's time.
    """

    first: Ints
    free: Ints
    target: Ints
    end: Ints

    @property
    def several(self) -> NDArray[np.bool_]:
        """Whether more than one event may be the target."""
        return self.end - self.free > 1

    @property
    def reach_training(self) -> NDArray[np.bool_]:
        """Whether training events have the target's time."""
        return self.first < self.free


def find_ties(store: SequenceStore, split: Split) -> Ties:
    """Find the events tied with the first event of each user's segment.

    Raises:
        ArgumentError: the log has no times, or finer ones than the prepared dataset keeps; or further columns
            of events, which belong to their items.
    """
    if store.event_columns is not None or store.event_targets is not None:
        raise ArgumentError(
            f"{store.name}: tie orders move items, and this log keeps columns of events that belong to them; "
            "leave tie_orders out"
        )
    if store.timestamps is None:
        raise ArgumentError(
            f"{store.name}: tie orders need times, and this log gives the order of events alone: which "
            "of them were tied is not known; use a log with a timestamp column"
        )
    times = np.asarray(store.timestamps)
    offsets = np.asarray(store.offsets, dtype=np.int64)
    fresh = np.ones(len(times) + 1, dtype=np.bool_)
    fresh[1:-1] = times[1:] != times[:-1]
    fresh[offsets] = True
    starts = np.flatnonzero(fresh)
    recorded = (store.meta.get("counts") or {}).get("tied_events")
    lengths = np.diff(starts)
    tied = int(lengths[lengths > 1].sum())
    if recorded is not None and recorded != tied:
        raise ArgumentError(
            f"{store.name}: the log's times are finer than the whole seconds kept, so that "
            f"{tied - recorded:,} events that share a second are in order: nothing is to be averaged"
        )
    segment = store.test_start if split == "test" else store.valid_start
    ends = offsets[1:] if split == "test" else store.test_start
    target = np.asarray(segment, dtype=np.int64)[np.asarray(segment) < np.asarray(ends)]
    learned = np.asarray(store.valid_start, dtype=np.int64)[np.asarray(segment) < np.asarray(ends)]
    run = np.searchsorted(starts, target, side="right") - 1
    first, end = starts[run], starts[run + 1]
    return Ties(first, np.maximum(first, learned), target, end)


def draw_order(store: SequenceStore, ties: Ties, generator: np.random.Generator) -> SequenceStore:
    """The log in another order of its ties; what was learned, and so popularity, stays as it was."""
    items = np.array(store.items)
    _shuffle(items, ties.free, ties.end, generator)
    _shuffle(items, ties.first, ties.target, generator)
    return store.with_items(items)


def evaluate_orders(
    evaluate: Callable[[SequenceStore], EvaluationResult],
    store: SequenceStore,
    *,
    orders: int,
    split: Split = "test",
    protocol: str | Protocol = "default",
    seed: int = 0,
    resamples: int = 1000,
) -> EvaluationResult:
    """Average a report over drawn orders; a user's metric is its mean over them.

    Args:
        evaluate: makes the report of a store.
        store: the prepared log.
        orders: how many are drawn, at least 1; the file's own is not among them but by chance.
        split: "test" or "valid".
        protocol: what `evaluate` measures by.
        seed: of the draws and of the bootstrap.
        resamples: bootstrap resamples over users; 0 leaves the intervals out.

    Returns:
        The averaged report, without ranks; its card names the orders.

    Raises:
        ArgumentError: no order, ties that are not known, or a protocol that counts users by their targets.
    """
    orders, seed = check_draws("tie_orders", orders, 1), check_draws("seed", seed)
    rules = get_protocol(protocol)
    if rules.seen_targets == "dropped":
        raise ArgumentError(
            f"protocol '{rules.name}' leaves out targets that were seen: each order counts other users"
        )
    ties = find_ties(store, split)
    streams = np.random.SeedSequence([seed, 1]).spawn(orders)
    results = [evaluate(draw_order(store, ties, np.random.default_rng(stream))) for stream in streams]
    users = {
        name: np.mean([result.per_user[name] for result in results], axis=0) for name in results[0].per_user
    }
    generator = np.random.default_rng(seed)
    card = dict(results[0].protocol)
    card["tie_orders"] = {
        "orders": orders,
        "several_targets": float(ties.several.mean()) if len(ties.target) else 0.0,
        "ties_reach_training": float(ties.reach_training.mean()) if len(ties.target) else 0.0,
    }
    return EvaluationResult(
        dataset=results[0].dataset,
        encoder=results[0].encoder,
        split=split,
        users=results[0].users,
        rows=results[0].rows,
        metrics=_mean([result.metrics for result in results]),
        metrics_seen_kept=_mean([result.metrics_seen_kept for result in results]),
        metrics_seen_removed=_mean([result.metrics_seen_removed for result in results]),
        popularity=_means([result.popularity for result in results]),
        confidence=confidence_intervals(users, generator, resamples=resamples) if resamples else {},
        slices=_mean_slices([result.slices for result in results]),
        lists=_means([result.lists for result in results]),
        protocol=card,
        per_user=users,
        user=results[0].user,
        ranks={},
        seconds=sum(result.seconds for result in results),
        digest=results[0].digest,
        headline=results[0].headline,
    )


def _shuffle(items: NDArray[np.int32], starts: Ints, ends: Ints, generator: np.random.Generator) -> None:
    """Shuffle the items of each span in place."""
    positions, offsets = expand_spans(starts, ends)
    owner = np.repeat(np.arange(len(starts)), np.diff(offsets))
    order = np.lexsort((generator.random(len(positions)), owner))
    items[positions] = items[positions[order]]


def _mean(parts: Sequence[Metrics]) -> Metrics:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _means(parts: Sequence[Mapping[str, Metrics]]) -> dict[str, Metrics]:
    return {seen: _mean([part[seen] for part in parts]) for seen in parts[0]}


def _mean_slices(parts: Sequence[Slices]) -> Slices:
    """Counts are means over the orders; a metric is that of all the orders' rows together."""
    found: Slices = {}
    for group, slices in parts[0].items():
        found[group] = {name: _mean_slice([part[group][name] for part in parts]) for name in slices}
    return found


def _mean_slice(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows: Floats = np.array([part["rows"] for part in parts], dtype=np.float64)
    mean: dict[str, Any] = {}
    for name in parts[0]:
        if name in ("rows", "users"):
            mean[name] = float(np.mean([part[name] for part in parts]))
        else:
            values = np.array([part[name] or 0.0 for part in parts])
            mean[name] = float(rows @ values / rows.sum()) if rows.sum() else None
    return mean
