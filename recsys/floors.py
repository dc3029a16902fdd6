"""Recommenders without an encoder, for a floor under every figure: item-kNN and EASE, ranked as encoders are.

Both know which items a user took, not in which order, and learn from training events alone; at test time
they read the same history as an encoder, each distinct item once. Popularity stands beside every evaluation
anyway.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.config import build, nearest, require
from recsys.datasets.store import SequenceStore
from recsys.errors import ArgumentError, ConfigError
from recsys.evaluation.evaluate import evaluate_scores
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.scored import Scores
from recsys.evaluation.spans import Ints, chunk_rows, distinct_items, expand_spans
from recsys.evaluation.targets import EvaluationTargets, PreparedLog, Split
from recsys.evaluation.tie_orders import evaluate_orders

EASE_MOST_ITEMS = 25_000
"""Catalogs beyond need more than 15 GB for EASE's matrix and its inverse."""
_CELLS_AT_ONCE = 8_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemKnnConfig:
    """Cosine item-kNN (Sarwar et al. 2001): an item scores the sum of its similarities to history items.

    The similarity of items i and j is users(i, j) / (sqrt(users(i) users(j)) + shrink).
    """

    neighbors: int = 100
    """Most similar items that each item keeps; 1 or more."""
    shrink: float = 0.0
    """Added to the denominator, against chance among rare items; 0 or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.neighbors >= 1, "floor.neighbors", self.neighbors, "1 or more")
        require(self.shrink >= 0, "floor.shrink", self.shrink, "0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class EaseConfig:
    """EASE (Steck 2019, arXiv:1905.03375): the linear item-to-item model with zero diagonal, closed form."""

    regularization: float = 500.0
    """Added to the diagonal of the co-occurrence matrix; above 0. The paper: 200 to 1000."""

    def __post_init__(self) -> None:
        """Check the range."""
        require(self.regularization > 0, "floor.regularization", self.regularization, "above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class PopularityConfig:
    """The number of training events, the same for everybody; has no options."""


FLOORS: dict[str, type[Any]] = {"popularity": PopularityConfig, "item-knn": ItemKnnConfig, "ease": EaseConfig}


def floor_configs(name: str, options: Mapping[str, Any]) -> list[Any]:
    """The configurations that options come to; a list of values makes one for each value.

    Raises:
        ConfigError: an unknown floor or option, or a value out of range.
    """
    if name not in FLOORS:
        raise ConfigError(f"unknown floor {name!r}{nearest(name, list(FLOORS))}")
    choices = [value if isinstance(value, list) else [value] for value in options.values()]
    return [
        build(FLOORS[name], dict(zip(options, values, strict=True)), where="floor")
        for values in itertools.product(*choices)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Floor:
    """A fitted floor: called with (b,) rows and their targets it gives (b, V) float64 scores.

    Attributes:
        store: the log in which histories are read.
        of_histories: from the distinct items of b histories and their (b+1,) offsets to (b, V) scores.
    """

    store: PreparedLog
    of_histories: Callable[[Ints, Ints], Scores]

    def __call__(self, rows: Ints, targets: EvaluationTargets) -> Scores:
        """Scores of the rows' users."""
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        return self.of_histories(*distinct_items(self.store.items, starts, ends, self.store.n_items))

    def on(self, store: PreparedLog) -> "Floor":
        """The same, reading histories in another log of the same catalog."""
        return Floor(store, self.of_histories)


def fit_floor(store: PreparedLog, config: Any) -> Floor:
    """Learn from the training events.

    Args:
        store: prepared data.
        config: an instance of one of `FLOORS`' classes.

    Raises:
        ArgumentError: EASE on a catalog of more than `EASE_MOST_ITEMS` items.
    """
    if isinstance(config, PopularityConfig):
        counts = store.item_counts().astype(np.float64)
        return Floor(store, lambda items, offsets: np.tile(counts, (len(offsets) - 1, 1)))
    if isinstance(config, ItemKnnConfig):
        return Floor(store, _knn_scores(store, config))
    return Floor(store, _ease_scores(store, config))


def evaluate_floor(
    store: SequenceStore,
    config: Any,
    *,
    split: Split = "test",
    protocol: str | Protocol = "default",
    ks: Sequence[int] = (1, 5, 10, 20),
    seed: int = 0,
    progress: bool = False,
    tie_orders: int = 0,
) -> EvaluationResult:
    """Fit a floor and rank every target of a split under it.

    Args:
        store: prepared data.
        config: an instance of one of `FLOORS`' classes.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        seed: of the bootstrap, of sampled negatives and of tie orders.
        progress: whether a bar may be drawn.
        tie_orders: orders of tied events to average over; 0 takes the file's.
    """
    floor = fit_floor(store, config)
    name = next(name for name, kind in FLOORS.items() if isinstance(config, kind))

    def ranked(log: SequenceStore) -> EvaluationResult:
        return evaluate_scores(
            floor.on(log),
            log,
            split=split,
            protocol=protocol,
            ks=ks,
            seed=seed,
            progress=progress,
            encoder=name,
        )

    if not tie_orders:
        return ranked(store)
    return evaluate_orders(ranked, store, orders=tie_orders, split=split, protocol=protocol, seed=seed)


class _Pairs:
    """The distinct (user, item) pairs of the training events, by user and by item."""

    def __init__(self, store: PreparedLog) -> None:
        self.n_items = store.n_items
        starts = np.asarray(store.offsets[:-1], dtype=np.int64)
        ends = np.asarray(store.valid_start, dtype=np.int64)
        self.items, self.offsets = distinct_items(store.items, starts, ends, store.n_items)
        users = np.repeat(np.arange(len(starts), dtype=np.int64), np.diff(self.offsets))
        self.users = users[np.argsort(self.items, kind="stable")]
        self.item_users = np.bincount(self.items, minlength=store.n_items)
        self.item_offsets = np.concatenate(([0], np.cumsum(self.item_users)))

    def together(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Numbers of users with both of two items: blocks (first item, (m, V) float64), in order."""
        size = max(1, _CELLS_AT_ONCE // self.n_items)
        for first in range(0, self.n_items, size):
            last = min(first + size, self.n_items)
            counts = np.zeros((last - first) * self.n_items)
            span = slice(int(self.item_offsets[first]), int(self.item_offsets[last]))
            users = self.users[span]
            item = np.repeat(np.arange(last - first, dtype=np.int64), self.item_users[first:last])
            starts, ends = self.offsets[users], self.offsets[users + 1]
            for part in chunk_rows(ends - starts):
                places, offsets = expand_spans(starts[part], ends[part])
                row = np.repeat(item[part], np.diff(offsets))
                counts += np.bincount(row * self.n_items + self.items[places], minlength=len(counts))
            yield first, counts.reshape(last - first, self.n_items)


def _knn_scores(store: PreparedLog, config: ItemKnnConfig) -> Callable[[Ints, Ints], Scores]:
    n_items = store.n_items
    pairs = _Pairs(store)
    norms = np.sqrt(pairs.item_users)
    found: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    kept = min(config.neighbors, n_items)
    for first, counts in pairs.together():
        places = np.arange(first, first + len(counts))
        # An item that no user took has similarity 0 to all: 0 / max(0 + shrink, 1).
        scale = norms[places, None] * norms + config.shrink
        similar = counts / np.where(scale > 0, scale, 1.0)
        similar[np.arange(len(places)), places] = 0.0
        # Stable, so that among equal similarities the items of lower index are kept, on every machine.
        nearest_ = np.argsort(-similar, axis=1, kind="stable")[:, :kept]
        values = np.take_along_axis(similar, nearest_, axis=1)
        positive = values > 0
        found.append((np.repeat(places, positive.sum(axis=1)), nearest_[positive], values[positive]))
    item, neighbor, value = (np.concatenate(part) for part in zip(*found, strict=True))
    # By neighbor: what an item of the history adds, and to which items.
    order = np.argsort(neighbor, kind="stable")
    item, value = item[order], value[order]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(neighbor, minlength=n_items))))

    def scores(history: Ints, bounds: Ints) -> Scores:
        n_rows = len(bounds) - 1
        places, ends = expand_spans(offsets[history], offsets[history + 1])
        per_event = np.diff(ends)
        owner = np.repeat(np.repeat(np.arange(n_rows), np.diff(bounds)), per_event)
        cells = owner * n_items + item[places]
        summed = np.bincount(cells, value[places], minlength=n_rows * n_items)
        return summed.reshape(n_rows, n_items).astype(np.float64, copy=False)

    return scores


def _ease_scores(store: PreparedLog, config: EaseConfig) -> Callable[[Ints, Ints], Scores]:
    if store.n_items > EASE_MOST_ITEMS:
        raise ArgumentError(
            f"EASE inverts a matrix of {store.n_items:,} x {store.n_items:,}, "
            f"{3 * 8 * store.n_items**2 / 1e9:.0f} GB in all: it is for catalogs of up to {EASE_MOST_ITEMS:,}"
        )
    gram = np.empty((store.n_items, store.n_items))
    for first, counts in _Pairs(store).together():
        gram[first : first + len(counts)] = counts
    gram[np.diag_indices(store.n_items)] += config.regularization
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(gram)))
    del gram
    # Steck 2019, equation 8: B = I - P diag(1 / diag P).
    weight = inverse.div_(-torch.diagonal(inverse).clone())
    weight.fill_diagonal_(0.0)

    def scores(history: Ints, bounds: Ints) -> Scores:
        with torch.inference_mode():
            summed = torch.nn.functional.embedding_bag(
                torch.from_numpy(history), weight, torch.from_numpy(bounds[:-1]), mode="sum"
            )
        return summed.numpy()

    return scores
