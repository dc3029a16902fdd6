"""NDCG by the local hour of the request, of one model or of several side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.console.pictures import picture
from recsys.errors import ArgumentError

_COLORS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")


def plot_by_hour(
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    requests: Sequence[int],
    path: str | Path,
    *,
    title: str,
    metric: str = "NDCG@10",
) -> Path:
    """Draw a line over 24 hours for each model, and how many requests each hour has.

    Args:
        panels: name of a panel to model to 24 values, None for an hour without requests; 1 to 4 panels of
            1 to 8 models.
        requests: 24 numbers of requests.
        path: picture to write; its ending says the format: .png, .svg or .pdf.
        title: over all panels.
        metric: what the values are.

    Returns:
        The path.

    Raises:
        ArgumentError: nothing to draw, too much, lists that are not of 24 hours, or an unknown format.
    """
    if not 1 <= len(panels) <= 4 or any(not 1 <= len(models) <= len(_COLORS) for models in panels.values()):
        raise ArgumentError("give 1 to 4 panels of 1 to 8 models")
    if any(len(values) != 24 for models in panels.values() for values in [requests, *models.values()]):
        raise ArgumentError("give 24 values for each model, one for each hour")
    with picture(path, max(5.6, 4.4 * len(panels)), 4.2) as figure:
        _draw(figure, panels, np.asarray(requests), title, metric)
    return Path(path)


def _draw(
    figure: Any,
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    requests: NDArray[np.int64],
    title: str,
    metric: str,
) -> None:
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(4, 1))
    hours = np.arange(24)
    # A figure of few requests says little: the larger its standard error, the fainter its point.
    weight = np.sqrt(requests / max(int(requests.max(initial=0)), 1)).clip(0.15, 1.0)
    for (upper, lower), (name, models) in zip(grid.T, panels.items(), strict=True):
        for place, (color, (model, values)) in enumerate(zip(_COLORS, models.items(), strict=False)):
            line = np.array([np.nan if value is None else value for value in values])
            # Where curves are equal the later, thinner one leaves an edge of the earlier to be seen.
            width = 1.4 + 1.6 * (len(models) - 1 - place) / max(len(models) - 1, 1) * (len(models) > 1)
            upper.plot(hours, line, color=color, linewidth=width, alpha=0.35)
            upper.scatter(hours, line, s=(2.2 * width) ** 2, color=color, alpha=weight, zorder=3, linewidth=0)
            upper.plot([], [], color=color, linewidth=width, marker="o", markersize=3, label=model)
        lower.bar(hours, requests, color="#BBBBBB")
        upper.set_title(name, fontsize=10)
        lower.set_xlabel("local hour of the request")
        lower.set_xticks(range(0, 24, 3))
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel(metric)
    grid[0, 0].set_ylim(bottom=0)
    grid[1, 0].set_ylabel("requests")
    handles: dict[str, Any] = {}
    for upper in grid[0]:
        handles |= dict(zip(*reversed(upper.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{title}; points of few are fainter", fontsize=10)
