"""The picture of a GPU run: how near each kernel comes to what the device can do."""

from pathlib import Path
from typing import Any

__all__ = ["plot"]

COLOURS = {"memory": "#2a6f97", "matrix products": "#c1666b", "exponentials": "#5b8e4a"}


def plot(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the roofline, and a bar for each kernel's fraction of its own limit; PNG and SVG.

    Args:
        result: of `recsys.benchmarks.kernels.run` on a GPU.
        folder: made if missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    entries = [entry for entry in result["comparisons"] if "limit" in entry]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(15, max(5.0, 0.2 * len(entries) + 1)), width_ratios=(2, 3)
    )
    _roofline(left, entries, result["limits"])
    _bars(right, entries)
    figure.suptitle(f"Kernels on {result['machine']['gpu']}")
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"roofline.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return paths


def _roofline(axes: Any, entries: list[dict[str, Any]], limits: dict[str, float]) -> None:
    """Operations of the limiting kind besides bytes: exponentials count as they cost, in products' units."""
    bandwidth, flops = limits["copy_bytes"], limits["bfloat16_flops"]
    x = [0.01, flops / bandwidth, 10_000]
    axes.loglog(x, [bandwidth * x[0], flops, flops], color="black", lw=1)
    axes.axhline(limits["float32_flops"], color="grey", lw=0.8, ls="--")
    for entry in entries:
        limit, took = entry["limit"], entry["ours_ms"]["median"] / 1e3
        # An exponential takes as long as so many operations of a product.
        work = limit["flops"] + limit["exps"] * flops / limits["exps"]
        axes.plot(work / limit["bytes"], work / took, "o", ms=5, color=COLOURS[limit["by"]], alpha=0.8)
    axes.set_xlabel("operations a byte (an exponential counted by its cost)")
    axes.set_ylabel("operations a second")
    axes.set_title(
        f"copy {bandwidth / 1e12:.2f} TB/s, bf16 {flops / 1e12:.0f} TFLOP/s, "
        f"exp2 {limits['exps'] / 1e12:.1f} T/s"
    )


def _bars(axes: Any, entries: list[dict[str, Any]]) -> None:
    names = [
        f"{e['operation']} {e['direction']}, {e['shape'].split()[0]}, d {e['d_model']}, {e['dtype']}"
        for e in entries
    ]
    places = range(len(entries))
    axes.barh(
        places,
        [100 * e["limit"]["fraction"] for e in entries],
        color=[COLOURS[e["limit"]["by"]] for e in entries],
    )
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of the limit that the least work meets first")
    for name, colour in COLOURS.items():
        axes.barh([0], [0], color=colour, label=name)
    axes.legend(loc="lower right", fontsize=8)
