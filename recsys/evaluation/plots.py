"""Models side by side: bars with confidence intervals, on the same users under the same protocol."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.console.pictures import picture, picture_format
from recsys.errors import ArgumentError
from recsys.evaluation.result import EvaluationResult

# Okabe and Ito's palette, told apart by most color-blind readers.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_LINE = "#444444"
# What must agree for two bars to be set side by side.
_SAME = ("dataset", "split", "users", "targets")
_SAME_PROTOCOL = ("protocol", "sha256", "candidates", "seen_items", "ties", "ndcg_ideal")


def plot_comparison(
    results: Mapping[str, EvaluationResult | Mapping[str, Any]],
    path: str | Path,
    *,
    metrics: Sequence[str] = ("hr@10", "ndcg@10", "mrr@10"),
) -> Path:
    """Draw a bar for each model and metric, with its 95% interval and the popularity baseline.

    Args:
        results: model name to its `EvaluationResult` or that as JSON (a run's report.json), 1 to 8.
        path: picture to write; its ending says the format: .png, .svg or .pdf.
        metrics: headline metrics to show.

    Returns:
        The path.

    Raises:
        ArgumentError: nothing to draw, an unknown metric or format, or results that are not comparable.
    """
    picture_format(path)
    reports = {
        name: result.to_json() if isinstance(result, EvaluationResult) else dict(result)
        for name, result in results.items()
    }
    _check_comparable(reports, metrics)
    first = next(iter(reports.values()))

    with picture(path, max(5.0, 1.2 + 0.75 * len(reports) * len(metrics)), 3.8) as figure:
        _draw(figure, reports, metrics, first)
    return Path(path)


def _draw(
    figure: Any, reports: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], first: Mapping[str, Any]
) -> None:
    from matplotlib.patheffects import withStroke

    axes = figure.subplots()
    width = min(0.8 / len(reports), 0.4)
    for place, (name, report) in enumerate(reports.items()):
        values = [report["metrics"][metric] for metric in metrics]
        centers = [group + (place - (len(reports) - 1) / 2) * width for group in range(len(metrics))]
        axes.bar(centers, values, width * 0.92, label=name, color=_COLORS[place])
        for metric, center, value in zip(metrics, centers, values, strict=True):
            low, high = report["confidence"].get(metric, (value, value))
            if high > low:
                axes.vlines(center, low, high, color=_LINE, linewidth=1.2)
            label = f"{value:.3f}".removeprefix("0")
            axes.annotate(
                label, (center, max(high, value)), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    for group, metric in enumerate(metrics):
        baseline = _popularity(first, metric)
        axes.hlines(
            baseline,
            group - len(reports) * width / 2 - 0.04,
            group + len(reports) * width / 2 + 0.04,
            color=_LINE,
            linestyle=(0, (1, 1)),
            linewidth=1.5,
            label="" if group else "most popular items",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set_xticks(range(len(metrics)), [metric.upper() for metric in metrics])
    axes.set_title(_title(first), loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=9)


def _check_comparable(reports: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> None:
    if not 1 <= len(reports) <= len(_COLORS):
        raise ArgumentError(f"results holds {len(reports)} models: give 1 to {len(_COLORS)}")
    if not metrics:
        raise ArgumentError("metrics is empty: name at least one, for example hr@10")
    names = list(reports)
    first = reports[names[0]]
    for name, report in reports.items():
        missing = [metric for metric in metrics if metric not in report["metrics"]]
        if missing:
            raise ArgumentError(
                f"{name} has no {missing[0]}: it was evaluated with {', '.join(report['metrics'])}"
            )
        pairs = [(key, first[key], report[key]) for key in _SAME]
        pairs += [(key, first["protocol"].get(key), report["protocol"].get(key)) for key in _SAME_PROTOCOL]
        for key, expected, found in pairs:
            if expected != found:
                raise ArgumentError(
                    f"{names[0]} and {name} are not comparable: {key} is {expected!r} and {found!r}; "
                    "evaluate both alike"
                )


def _popularity(report: Mapping[str, Any], metric: str) -> float:
    kept = str(report["protocol"]["seen_items"]).startswith("kept")
    return float(report["popularity"]["kept" if kept else "removed"][metric])


def _title(report: Mapping[str, Any]) -> str:
    card = report["protocol"]
    seen = "kept" if str(card["seen_items"]).startswith("kept") else "removed"
    return (
        f"{report['dataset']}, {report['split']}: {report['users']:,} users\n"
        f"{card['candidates']}, seen items {seen}" + (", 95% intervals" if report["confidence"] else "")
    )
