"""A user's clock as a picture: 24 hours around, what is preferred at each outwards."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from recsys.answering.user_clock import HOURS, OTHER, UserClock
from recsys.console.pictures import picture
from recsys.errors import ArgumentError

# Okabe and Ito's palette, told apart by most color-blind readers; grey tones for what is not the user's own.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_OTHER, _PRIOR = "#BBBBBB", "#EEEEEE"
_LONGEST = 28
_HOLE = 0.25
"""Radius left out, so that the innermost label has area."""


def plot_user_clock(clock: UserClock, path: str | Path) -> Path:
    """Draw a user's 24 hours as stacked bars on a clock face, midnight at the top.

    Args:
        clock: from `read_user_clock`, at most 8 labels beside "other".
        path: picture to write; its ending says the format: .png, .svg or .pdf.

    Returns:
        The path.

    Raises:
        ArgumentError: too many labels, or a format that cannot be drawn.
    """
    own = [label for label in clock.labels if label != OTHER]
    if len(own) > len(_COLORS):
        raise ArgumentError(f"{len(own)} labels are more than the {len(_COLORS)} colors: ask for fewer")
    with picture(path, 7.2, 5.4) as figure:
        _draw(figure, clock)
    return Path(path)


def _draw(figure: Any, clock: UserClock) -> None:
    axes: Any = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    width = math.tau / HOURS
    angles = np.arange(HOURS) * width
    bottom = np.full(HOURS, _HOLE)
    series = [
        (label, clock.shares[:, place], _OTHER if label == OTHER else _COLORS[place])
        for place, label in enumerate(clock.labels)
    ]
    for label, height, color in [*series, ("prior of all users", clock.prior, _PRIOR)]:
        short = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
        axes.bar(angles, height, width * 0.94, bottom=bottom, color=color, label=short)
        bottom = bottom + height
    axes.set_xticks(angles[::3], [f"{hour:02d}:00" for hour in range(0, HOURS, 3)])
    # The scale is that of lengths outwards; areas are not shares.
    scale = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.set_yticks(_HOLE + scale, [f"{share:.0%}" for share in scale], fontsize=7)
    axes.set_rlabel_position(math.degrees(width / 2))
    axes.yaxis.grid(visible=True, alpha=0.35)
    axes.xaxis.grid(visible=False)
    axes.set_axisbelow(False)
    axes.set_ylim(0, 1.02 + _HOLE)
    axes.spines["polar"].set_visible(False)
    axes.set_title(
        f"Clock of user {clock.user}: {clock.kind} by local hour\nshare of what is pooled, "
        f"outwards; {clock.events:,} events",
        loc="left",
        fontsize=10,
    )
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
