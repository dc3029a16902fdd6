"""What an evaluation hands back: figures, how sure they are, where they hold, and how they were made."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.console.text import table
from recsys.errors import ArgumentError
from recsys.evaluation.card import render_card
from recsys.evaluation.metrics import OF_SEVERAL_TARGETS, Ranks
from recsys.evaluation.slices import SLICE_GROUPS, SLICE_METRICS, SliceRows, Slices
from recsys.notebook.html import html_table

if TYPE_CHECKING:
    from recsys.evaluation.comparing import Comparison
    from recsys.evaluation.unbiased import UnbiasedFigures

Metrics = dict[str, float]
_LISTS_SHOWN = ("coverage", "novelty")
"""Figures of lists that stand beneath the metrics; all are in a table of their own."""


@dataclass(kw_only=True, slots=True, repr=False)
class EvaluationResult:
    """Figures of one model on one split.

    Attributes:
        dataset: name of the log.
        encoder: name of the model.
        split: "test" or "valid".
        users: counted users.
        rows: ranked targets.
        metrics: the headline, hr@k, recall@k, ndcg@k, mrr@k, precision@k and map@k, under the protocol's
            seen rule.
        metrics_seen_kept: the same with history items left in the ranking; empty if the protocol samples.
        metrics_seen_removed: the same without them (the target stays a candidate).
        popularity: the popularity baseline under "kept" and "removed".
        confidence: 95% percentile interval of each headline metric; empty if not asked for.
        slices: hr@10 and ndcg@10 of the headline by history length, popularity, new or repeated,
            and by local hour of the request where the log tells.
        lists: coverage@k, novelty@k, gini@k and serendipity@k under "kept" and "removed", and where the log
            was prepared with them diversity_tags@k and calibration_kl@k by tags and diversity_vectors@k by
            vectors; empty if not asked for.
        protocol: the protocol card.
        per_user: (U,) float64 headline metrics of each counted user.
        user: (U,) int64 index of each counted user in the store.
        ranks: (R,) ranks of the targets under "kept" and "removed"; empty for a mean over tie orders.
        seconds: wall time of the whole evaluation.
        digest: of the data that was ranked; None where it has none.
        headline: the seen rule of the headline.
        row_user: (R,) int64 user of each target's row.
        slice_rows: which slice of each group a row is in; empty for a mean over tie orders.
        unbiased: figures weighted by inverse propensities; None if not asked for.

    A metric is read by its name: ``result["ndcg@10"]``. Two results are set side by side by
    :meth:`compare`.
    """

    dataset: str
    encoder: str
    split: str
    users: int
    rows: int
    metrics: Metrics
    metrics_seen_kept: Metrics
    metrics_seen_removed: Metrics
    popularity: dict[str, Metrics]
    confidence: dict[str, tuple[float, float]]
    slices: Slices
    lists: dict[str, Metrics]
    protocol: dict[str, Any]
    per_user: dict[str, NDArray[np.float64]] = field(repr=False)
    user: NDArray[np.int64] = field(repr=False)
    ranks: dict[str, Ranks] = field(repr=False)
    seconds: float
    digest: str | None = field(default=None, repr=False)
    headline: str = field(default="kept", repr=False)
    row_user: NDArray[np.int64] | None = field(default=None, repr=False)
    slice_rows: SliceRows = field(default_factory=dict, repr=False)
    unbiased: "UnbiasedFigures | None" = field(default=None, repr=False)

    def __getitem__(self, name: str) -> float:
        """A headline metric, its name in any letters.

        Raises:
            ArgumentError: it was not computed.
        """
        if str(name).lower() not in self.metrics:
            raise ArgumentError(f"no metric {name!r} in this result: it holds {', '.join(self.metrics)}")
        return self.metrics[str(name).lower()]

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in self.metrics

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __repr__(self) -> str:
        shown = [name for name in ("hr@10", "ndcg@10") if name in self.metrics] or list(self.metrics)[:2]
        figures = ", ".join(f"{name} {self._with_interval(name)}" for name in shown)
        return (
            f"EvaluationResult({self.encoder} on {self.dataset}, {self.split}, {self.users:,} users, "
            f"seen {self.headline}: {figures})"
        )

    def _repr_html_(self) -> str:
        title = f"{self.encoder} on {self.dataset}, {self.split}, {self.users:,} users"
        names, rows = self._grid()
        notes = [f"{name}: {value}" for name, value in self.protocol.items() if isinstance(value, str)]
        return html_table(title, names, rows, notes)

    def compare(self, other: "EvaluationResult", **options: Any) -> "Comparison":
        """Set this result beside another of the same users; arguments as of `recsys.compare`."""
        from recsys.evaluation.comparing import compare

        return compare(self, other, **options)

    def to_json(self) -> dict[str, Any]:
        """Return plain values only, without the per-user arrays."""
        return {
            "dataset": self.dataset,
            "encoder": self.encoder,
            "split": self.split,
            "users": self.users,
            "targets": self.rows,
            "metrics": dict(self.metrics),
            "metrics_seen_kept": dict(self.metrics_seen_kept),
            "metrics_seen_removed": dict(self.metrics_seen_removed),
            "popularity": {seen: dict(metrics) for seen, metrics in self.popularity.items()},
            "confidence": {name: list(interval) for name, interval in self.confidence.items()},
            "lists": {seen: dict(metrics) for seen, metrics in self.lists.items()},
            "slices": self.slices,
            "protocol": self.protocol,
            "seconds": self.seconds,
            **({} if self.unbiased is None else {"unbiased": self.unbiased.to_json()}),
        }

    def table(self) -> str:
        """Return the figures as text: a line per metric, seen items kept and removed, popularity beside.

        recall@k, precision@k and map@k are left out where every user has one target: they are then hr@k,
        hr@k / k and mrr@k. Of the lists it shows coverage@k and novelty@k; the rest is in `list_table`.
        """
        names, rows = self._grid()
        title = (
            f"{self.encoder} on {self.dataset}, {self.split}, {self.users:,} users; pop.: popularity baseline"
        )
        return f"{title}\n{table(names, rows, left=('metric',))}"

    def slice_table(self) -> str:
        """Return hr@10 and ndcg@10 by slice as text, a line per slice that holds a target."""
        lines = [
            [
                SLICE_GROUPS[group],
                name,
                f"{part['rows']:,.0f}",
                *(f"{part[m]:.4f}" for m in SLICE_METRICS),
            ]
            for group, slices in self.slices.items()
            for name, part in slices.items()
            if part["rows"]
        ]
        return table(("by", "slice", "targets", *SLICE_METRICS), lines, left=("by", "slice"))

    def list_table(self) -> str:
        """Return the figures of the lists as text, a line per figure, a column per cut-off and seen rule."""
        if not self.lists:
            return "No lists were made: this ranks targets alone."
        names = list(next(iter(self.lists.values())))
        ks = sorted({int(name.split("@")[1]) for name in names})
        rows = []
        for figure in dict.fromkeys(name.split("@")[0] for name in names):
            cells = [self.lists[seen].get(f"{figure}@{k}") for seen in self.lists for k in ks]
            rows.append([figure, *("" if cell is None else f"{cell:.4f}" for cell in cells)])
        headers = ["list", *(f"{seen} @{k}" for seen in self.lists for k in ks)]
        return table(headers, rows, left=("list",))

    def describe_protocol(self) -> str:
        """Return the protocol card as text."""
        return render_card(self.protocol)

    def _with_interval(self, name: str) -> str:
        low, high = self.confidence.get(name, (None, None))
        return f"{self.metrics[name]:.4f}" + ("" if low is None else f" ({low:.4f}-{high:.4f})")

    def _grid(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows of the table of figures."""
        names = [("" if model else "pop. ") + self._rule(seen) for seen, model in self._column_kinds()]
        rows = [
            [metric, *(f"{values[metric]:.4f}" for values in self._columns())]
            for metric in self._shown_metrics()
        ]
        for metric in next(iter(self.lists.values()), {}):
            if metric.split("@")[0] not in _LISTS_SHOWN:
                continue
            figures = [
                self.lists.get(seen, {}).get(metric) if model else None
                for seen, model in self._column_kinds()
            ]
            rows.append([metric, *("" if figure is None else f"{figure:.4f}" for figure in figures)])
        if self.confidence:
            # Beside the figures that it belongs to.
            names.insert(1, f"95% of {names[0]}")
            for row in rows:
                low, high = self.confidence.get(row[0], (None, None))
                row.insert(2, "" if low is None else f"{low:.4f}-{high:.4f}")
        names = [f"seen {name}" if name in ("kept", "removed") else name for name in names]
        return ["metric", *names], rows

    def _shown_metrics(self) -> list[str]:
        single = self.rows == self.users
        said = OF_SEVERAL_TARGETS if single else ()
        return [metric for metric in self.metrics if metric.split("@")[0] not in said]

    def _column_kinds(self) -> list[tuple[str, bool]]:
        """(seen rule, whether the model's) of each column; the headline's rule first."""
        order = sorted(self.popularity, key=lambda seen: self._metrics_of(seen) != self.metrics)
        return [(seen, True) for seen in order] + [(seen, False) for seen in order]

    def _columns(self) -> list[Metrics]:
        return [
            self._metrics_of(seen) if model else self.popularity[seen] for seen, model in self._column_kinds()
        ]

    def _rule(self, seen: str) -> str:
        return seen if self.metrics_seen_kept else "sampled"

    def _metrics_of(self, seen: str) -> Metrics:
        return self.metrics_seen_kept if seen == "kept" else self.metrics_seen_removed
