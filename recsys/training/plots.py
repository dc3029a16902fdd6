"""Training curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.console.pictures import picture

_LOSSES = {
    "full": "cross-entropy per target (nats)",
    "sampled_softmax": "sampled cross-entropy per target (nats)",
    "gbce": "generalized binary cross-entropy",
    "bce": "binary cross-entropy",
    "bpr": "BPR loss",
}
_MARKED = 12
"""Validations up to which each is marked: a single one would show no line."""


def plot_training(
    history: Sequence[dict[str, Any]], folder: Path, *, loss: str = "full", select: str = "ndcg@10"
) -> Path:
    """Draw loss and validation metrics by epoch into ``folder/training.png``.

    Args:
        history: one record per epoch, as in ``metrics.jsonl``.
        folder: made if missing.
        loss: name of the loss, as in `LossPlan.name`.
        select: name of the validation metric by which weights were kept.

    Returns:
        The picture's path.
    """
    path = folder / "training.png"
    with picture(path, 9, 3.9) as figure:
        left, right = figure.subplots(1, 2)
        marker = "o" if len(history) <= _MARKED else ""
        for name, label, color in (
            ("loss", "training", "#4c566a"),
            ("validation_loss", "validation", "#d08770"),
        ):
            points = [(r["epoch"], r[name]) for r in history if name in r]
            if points:
                left.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=4, label=label)
        if history:
            left.legend(loc="upper right")
        left.set_title("Loss", loc="left", fontsize=10)
        left.set(xlabel="epoch", ylabel=_LOSSES.get(loss, loss))
        _draw_validation(right, history, select)
        last = max((r["epoch"] for r in history), default=1)
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            # Epochs are whole: a short run has no ticks between them.
            axes.set_xlim(0.5 if last <= _MARKED else 0, last + (0.5 if last <= _MARKED else 0.02 * last))
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return path


def _draw_validation(axes: Any, history: Sequence[dict[str, Any]], select: str) -> None:
    scored = [r for r in history if "valid" in r]
    marker = "o" if len(scored) <= _MARKED else ""
    shown = dict.fromkeys(("hr@10", "ndcg@10", select))
    for name, color in zip(shown, ("#1f77b4", "#d62728", "#2ca02c"), strict=False):
        points = [(r["epoch"], r["valid"][name]) for r in scored if name in r["valid"]]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, label=name.upper(), color=color, marker=marker, markersize=4)
    title = "Validation: whole catalog ranked, seen items kept"
    if scored:
        best = max(scored, key=lambda r: r["valid"].get(select, 0.0))
        axes.axvline(best["epoch"], color="#888888", linestyle=":", linewidth=1)
        # Above the axes, where no curve runs.
        title += f"\nweights of epoch {best['epoch']}: {select.upper()} {best['valid'][select]:.4f}"
        axes.legend(loc="lower right")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel="epoch", ylabel="metric")
    axes.set_ylim(bottom=0)
