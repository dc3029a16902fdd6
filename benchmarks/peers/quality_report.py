"""The comparison of quality as JSON, as tables and as a picture."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.benchmarks.peers.quality_curves import METRIC, SELECTED, Curve
from recsys.files import replacing

SHARED = (
    "Processor seconds (all threads of the training process) are what is compared: they suffer less from "
    "others on the machine than wall seconds do."
)
COLORS = ("#d62728", "#9467bd", "#8c564b", "#1f77b4", "#2ca02c", "#ff7f0e", "#17becf")


def summary(curve: Curve) -> dict[str, Any]:
    """Everything measured of one side, ready for JSON."""
    found: dict[str, Any] = {
        "failure": curve.failure,
        "stopped": curve.stopped,
        "facts": curve.facts,
        "points": [asdict(point) for point in curve.points],
    }
    if not curve.points:
        return found
    last = curve.points[-1]
    return found | {
        "best": None if curve.best is None else asdict(curve.best),
        "test": curve.test,
        "epochs": curve.epochs(),
        "training": {"seconds": last.seconds, "cpu_seconds": last.cpu_seconds},
        "set_up_cpu_seconds": curve.set_up_cpu_seconds,
        "events_per_cpu_second": last.events / last.cpu_seconds,
        "peak_mib": last.peak_mib,
        "evaluation": curve.evaluation | {"evaluations": len(curve.points)},
    }


def print_tables(result: dict[str, Any]) -> None:
    """Print both tables to standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 190)
    log = result["log"]
    table = Table(
        title=f"{log['name']} ({log['users']:,} users, {log['items']:,} items, {log['events']:,} events), "
        f"test at the best {result['selected_by']}; {result['threads']} thread"
    )
    for heading in (
        "side",
        "valid NDCG@10",
        "test HR@10 kept",
        "NDCG@10 kept",
        "HR@10 removed",
        "NDCG@10 removed",
        "best at cpu s",
        "epochs",
        "train cpu s",
        "train s",
        "events/cpu s",
        "peak MiB",
        "eval cpu s",
        "ended",
    ):
        table.add_column(heading, justify="left" if heading in ("side", "ended") else "right")
    for name, side in result["sides"].items():
        table.add_row(name, *_cells(side))
    console.print(table)
    console.print(_cost_table(result["costs"]))
    console.print(SHARED)
    for name, side in result["sides"].items():
        if side["failure"]:
            console.print(f"{name}: {side['failure']}")


def _cells(side: dict[str, Any]) -> list[str]:
    if not side["points"]:
        return [*[""] * 12, "failed"]
    best, test = side["best"], side["test"]
    return [
        f"{best['valid'][SELECTED][METRIC]:.4f}",
        # Without test figures, the side failed while it was measured.
        *(
            f"{test[rule][name]:.4f}" if test else ""
            for rule in ("kept", "removed")
            for name in ("hr@10", METRIC)
        ),
        f"{best['cpu_seconds']:,.0f}",
        f"{side['epochs']:.1f}",
        f"{side['training']['cpu_seconds']:,.0f}",
        f"{side['training']['seconds']:,.0f}",
        f"{side['events_per_cpu_second']:,.0f}",
        f"{side['peak_mib']:,.0f}",
        f"{side['evaluation']['cpu_seconds']:,.0f}",
        "failed" if side["failure"] else side["stopped"],
    ]


def _cost_table(costs: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="what it takes to reach the peer's best validation NDCG@10")
    for heading in (
        "peer",
        "side",
        "seen",
        "NDCG@10",
        "peer: cpu s",
        "ours: cpu s",
        "peer / ours",
        "peer: MiB",
        "ours: MiB",
        "peer / ours",
    ):
        table.add_column(heading, justify="left" if heading in ("peer", "side", "seen") else "right")
    for row in costs:
        there, here, times = row["peer_needed"], row["ours_needed"], row["times"]
        cells = [row["peer"], row["side"], row["seen"], f"{row['score']:.4f}"]
        for key in ("cpu_seconds", "peak_mib"):
            reached = here is not None
            cells += [
                f"{there[key]:,.0f}",
                f"{here[key]:,.1f}" if reached else "not reached",
                f"{times[key]:.1f}" if reached else "",
            ]
        table.add_row(*cells)
    return table


def draw(result: dict[str, Any], path: Path) -> None:
    """Validation NDCG@10 over processor seconds of training, a panel per rule, into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, rule in zip(panels, ("removed", "kept"), strict=True):
        for color, (name, side) in zip(_colors(result), result["sides"].items(), strict=False):
            points = side["points"]
            if not points:
                continue
            seconds = [point["cpu_seconds"] for point in points]
            scores = [point["valid"][rule][METRIC] for point in points]
            axes.plot(seconds, scores, ".-", color=color, linewidth=1.3, markersize=4, label=name)
            top = scores.index(max(scores))
            axes.plot(seconds[top], scores[top], "*", color=color, markersize=12)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.set(
            xlabel="processor seconds of training, one process",
            ylabel="validation NDCG@10",
            title=f"seen items {rule}",
        )
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(loc="upper left", frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _colors(result: dict[str, Any]) -> list[str]:
    """A color per side, again and again if there are many."""
    sides = len(result["sides"])
    return [COLORS[place % len(COLORS)] for place in range(sides)]
