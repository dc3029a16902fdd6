"""The picture of recall against latency."""

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"hnsw": "tab:blue", "hnsw-16": "tab:cyan", "ivf": "tab:orange", "ivfpq": "tab:red"}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
LABELS = {"hnsw": "hnsw, M 32", "hnsw-16": "hnsw, M 16", "ivf": "ivf", "ivfpq": "ivfpq, refined"}


def draw_recall(curves: list[dict[str, Any]], path: Path) -> None:
    """Recall over milliseconds: a row per kind of vectors, a column per catalog size.

    Args:
        curves: as `recall_latency` records them.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({c["items"] for c in curves})
    kinds = [
        name for name in ("spectral", "clustered", "isotropic") if name in {c["vectors"] for c in curves}
    ]
    figure, axes = pyplot.subplots(
        len(kinds), len(sizes), figsize=(4.4 * len(sizes), 3.3 * len(kinds)), squeeze=False, sharey="row"
    )
    for line, vectors in zip(axes, kinds, strict=True):
        for axis, size in zip(line, sizes, strict=True):
            here = [c for c in curves if (c["vectors"], c["items"]) == (vectors, size)]
            if not here:
                axis.set_axis_off()
                continue
            _panel(axis, here)
            axis.set_title(f"{vectors}, {size:,} items", fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("recall (solid @10, dashed @100)")
    for line in axes:
        for axis in line:
            axis.set_xlabel("processor ms per query, one thread")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _panel(axis: Any, curves: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    for c in sorted(curves, key=lambda c: list(COLOURS).index(c["name"])):
        for k, style in ((10, "o-"), (100, "s--")):
            points = [p[f"k{k}"] for p in c["points"]]
            axis.plot(
                [p["p50_ms"] for p in points],
                [p["recall"] for p in points],
                style,
                color=COLOURS[c["name"]],
                markersize=3.5,
                linewidth=1.2,
                label=LABELS[c["name"]] if k == 10 else None,
            )
    flat = float(
        np.median([p[f"k{k}"]["flat_p50_ms"] for c in curves for p in c["points"] for k in (10, 100)])
    )
    axis.axvline(flat, color="black", linestyle=":", label="FAISS flat (exact)")
    axis.axvline(flat / 5, color="grey", linestyle=":", linewidth=0.8, label="a fifth of it")
    axis.axhline(0.95, color="grey", linewidth=0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(TICKS))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.25, which="both")
