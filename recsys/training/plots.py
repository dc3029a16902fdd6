"""Training curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.files import replacing


def plot_training(history: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Draw loss and validation metrics by epoch into ``folder/training.png``.

    Args:
        history: one record per epoch, as in ``metrics.jsonl``.
        folder: made if missing.

    Returns:
        The picture's path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([r["epoch"] for r in history], [r["loss"] for r in history], color="#4c566a")
    left.set(xlabel="epoch", ylabel="cross-entropy per target (nats)", title="Training loss")

    scored = [r for r in history if "valid" in r]
    epochs = [r["epoch"] for r in scored]
    for name, color in (("hr@10", "#1f77b4"), ("ndcg@10", "#d62728")):
        right.plot(epochs, [r["valid"][name] for r in scored], label=name.upper(), color=color)
    if scored:
        best = max(scored, key=lambda r: r["valid"]["ndcg@10"])
        right.axvline(best["epoch"], color="#888888", linestyle=":", linewidth=1)
        right.annotate(
            f"kept: epoch {best['epoch']}, NDCG@10 {best['valid']['ndcg@10']:.4f}",
            (best["epoch"], best["valid"]["ndcg@10"]),
            xytext=(-4, -14),
            textcoords="offset points",
            ha="right" if best["epoch"] > 0.4 * epochs[-1] else "left",
            fontsize=8,
        )
        right.legend(loc="lower right")
    right.set(xlabel="epoch", ylabel="metric", title="Validation, whole catalog ranked")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    path = folder / "training.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
