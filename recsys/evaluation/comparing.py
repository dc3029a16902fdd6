"""Two models on the same users: a paired bootstrap of every metric, as a whole and by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.console.text import table
from recsys.errors import ArgumentError
from recsys.evaluation.bootstrap import PairedDifference, paired_difference, stream_of
from recsys.evaluation.metrics import OF_SEVERAL_TARGETS, Floats, check_draws
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.slices import SLICE_GROUPS, slice_gains
from recsys.notebook.html import html_table

__all__ = ["Compared", "Comparison", "compare"]

_CARD = ("protocol", "segment", "targets", "candidates", "seen_items", "ties", "ndcg_ideal", "tie_orders")
_MIN_USERS = 10
"""Slices of fewer users have no test: a handful of users says nothing."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of two models over the same users.

    Attributes:
        users: counted.
        a, b: means.
        test: of mean(a) - mean(b); None for a slice of too few users.
    """

    users: int
    a: float
    b: float
    test: PairedDifference | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = {"users": self.users, "a": self.a, "b": self.b, "difference": self.a - self.b}
        if self.test is not None:
            found |= {"interval": [self.test.low, self.test.high], "p_value": self.test.p_value}
        return found

    def cells(self) -> list[str]:
        """As a table shows it."""
        found = [f"{self.a:.4f}", f"{self.b:.4f}", f"{self.a - self.b:+.4f}"]
        if self.test is None:
            return [*found, "", ""]
        return [*found, f"{self.test.low:+.4f} to {self.test.high:+.4f}", f"{self.test.p_value:.4f}"]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Comparison:
    """What `compare` found; prints as a table.

    Attributes:
        names: of the two models.
        dataset, split: what they were ranked on.
        users: counted users.
        resamples: of the bootstrap.
        metrics: by name.
        slices: by group, slice and metric; empty for means over tie orders.
        protocol: the protocol card of the first.
    """

    names: tuple[str, str]
    dataset: str
    split: str
    users: int
    resamples: int
    metrics: dict[str, Compared]
    slices: dict[str, dict[str, dict[str, Compared]]]
    protocol: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Compared:
        """One metric, as of :class:`~recsys.evaluation.result.EvaluationResult`."""
        if str(name).lower() not in self.metrics:
            raise ArgumentError(f"no metric {name!r} in this comparison: it holds {', '.join(self.metrics)}")
        return self.metrics[str(name).lower()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "dataset": self.dataset,
            "split": self.split,
            "users": self.users,
            "resamples": self.resamples,
            "metrics": {name: compared.to_json() for name, compared in self.metrics.items()},
            "slices": {
                group: {
                    name: {metric: compared.to_json() for metric, compared in part.items()}
                    for name, part in parts.items()
                }
                for group, parts in self.slices.items()
            },
            "protocol": self.protocol,
        }

    def table(self) -> str:
        """A line per metric: both means, their difference with its 95% interval, and the p-value."""
        rows = [[name, *compared.cells()] for name, compared in self.metrics.items()]
        return f"{self._title()}\n{table(_HEADERS, rows, left=('metric',))}"

    def slice_table(self, metric: str = "ndcg@10") -> str:
        """The same for one metric, a line per slice.

        Args:
            metric: ``"hr@10"`` or ``"ndcg@10"``.
        """
        rows = [
            [SLICE_GROUPS[group], name, f"{part[metric].users:,}", *part[metric].cells()]
            for group, parts in self.slices.items()
            for name, part in parts.items()
        ]
        return f"{metric}\n{table(('by', 'slice', 'users', *_HEADERS[1:]), rows, left=('by', 'slice'))}"

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        rows = [[name, *compared.cells()] for name, compared in self.metrics.items()]
        return html_table(self._title(), _HEADERS, rows)

    def _title(self) -> str:
        a, b = self.names
        return f"a: {a}, b: {b}; {self.dataset}, {self.split}, {self.users:,} users"


_HEADERS = ("metric", "a", "b", "a - b", "95% interval", "p")


def compare(
    a: EvaluationResult,
    b: EvaluationResult,
    *,
    names: Sequence[str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Test on the same users whether two models differ.

    Users are resampled in pairs, as `recsys.evaluation.bootstrap.paired_difference` says. In a slice a user
    counts once, with the mean over the user's targets in it.

    Args:
        a: result of one model.
        b: of the other, on the same data by the same protocol.
        names: what to call them; None takes their encoders' names.
        resamples: of the bootstrap.
        seed: of the bootstrap; each metric has a stream of its own.

    Raises:
        ArgumentError: the results are of other data, users or protocols, or share no metric.
    """
    for given in (a, b):
        if not isinstance(given, EvaluationResult):
            raise ArgumentError(
                f"compare takes two results of evaluate(), not {type(given).__name__}: pass model.evaluate()"
            )
    seed, resamples = check_draws("seed", seed), check_draws("resamples", resamples, 1)
    _check_same(a, b)
    # What says the same as hr and mrr where every user has one target is tested once.
    single = a.rows == a.users
    shared = [
        n for n in a.metrics if n in b.per_user and not (single and n.split("@")[0] in OF_SEVERAL_TARGETS)
    ]
    if not shared:
        raise ArgumentError("the results share no metric: evaluate both with the same ks=")

    def test(name: str, x: Floats, y: Floats, fewest: int = 1) -> Compared:
        drawn = None
        if len(x) >= fewest:
            drawn = paired_difference(x, y, stream_of(name, seed), resamples=resamples)
        return Compared(len(x), float(x.mean()), float(y.mean()), drawn)

    called = (a.encoder, b.encoder) if names is None else (str(names[0]), str(names[1]))
    slices: dict[str, dict[str, dict[str, Compared]]] = {}
    for group, name, metric, x, y in _slice_pairs(a, b):
        part = slices.setdefault(group, {}).setdefault(name, {})
        part[metric] = test(f"{group}/{name}/{metric}", x, y, _MIN_USERS)
    return Comparison(
        names=called,
        dataset=a.dataset,
        split=a.split,
        users=a.users,
        resamples=resamples,
        metrics={name: test(name, a.per_user[name], b.per_user[name]) for name in shared},
        slices=slices,
        protocol=a.protocol,
    )


def _check_same(a: EvaluationResult, b: EvaluationResult) -> None:
    if a.digest != b.digest and None not in (a.digest, b.digest):
        raise ArgumentError(
            f"the results are of different data ({a.dataset} with {a.users:,} users, {b.dataset} with "
            f"{b.users:,}): train both on one prepared dataset"
        )
    for key in _CARD:
        if a.protocol.get(key) != b.protocol.get(key):
            raise ArgumentError(
                f"the results were made otherwise: {key} is {a.protocol.get(key)!r} and "
                f"{b.protocol.get(key)!r}; evaluate both with the same arguments"
            )
    if not np.array_equal(a.user, b.user):
        raise ArgumentError("the results count different users: evaluate both on the same split")


def _slice_pairs(
    a: EvaluationResult, b: EvaluationResult
) -> "list[tuple[str, str, str, NDArray[np.float64], NDArray[np.float64]]]":
    """Group, slice, metric and each user's mean in it under both models, for slices that hold a target."""
    if a.row_user is None or not a.slice_rows or not b.slice_rows:
        return []
    gains = [slice_gains(result.ranks[result.headline]) for result in (a, b)]
    found = []
    for group, (names, places) in a.slice_rows.items():
        for place, name in enumerate(names):
            inside = np.flatnonzero(places == place)
            if not len(inside):
                continue
            _, starts, counts = np.unique(a.row_user[inside], return_index=True, return_counts=True)
            for metric in gains[0]:
                x, y = (np.add.reduceat(side[metric][inside], starts) / counts for side in gains)
                found.append((group, name, metric, x, y))
    return found
