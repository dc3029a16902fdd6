"""Drawings as SVG elements: a clock face of 24 hours, and curves. Colours are the sheet's."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

HOURS = 24
_HOLE, _RIM = 30.0, 100.0
"""Radii of a share of nothing, so that the innermost label has area, and of the whole."""
_LABELS = 112.0
_GAP = 0.03
"""Of an hour's angle, left free on either side."""


def clock_face(
    shares: Sequence[Sequence[float]], labels: Sequence[str], hour: int | None, title: str
) -> Markup:
    """Shares by local hour as rings of sectors, midnight at the top; lengths outwards are shares.

    Args:
        shares: 24 rows, one share for each label; what is left up to 1 stays empty.
        labels: what they are of; the last may be "other".
        hour: at which a hand points; None draws none.
        title: what a reader of the screen says.
    """
    parts = [
        f'<svg class="clock" viewBox="-128 -128 256 256" role="img" aria-label="{escape(title)}">',
        f'<circle class="face" r="{_RIM:g}"/>',
    ]
    step = math.tau / HOURS
    for place, row in enumerate(shares):
        low = 0.0
        for label, share in enumerate(row):
            high = min(1.0, low + max(0.0, share))
            if high - low >= 0.002:
                kind = "other" if labels[label] == "other" else str(label)
                told = escape(f"{place:02d}:00 · {labels[label]} · {share:.0%}")
                path = _sector((place - 0.5 + _GAP) * step, (place + 0.5 - _GAP) * step, _at(low), _at(high))
                parts.append(f'<path class="share-{kind}" d="{path}"><title>{told}</title></path>')
            low = high
    parts += [f'<circle class="grid" r="{_at(share):.1f}"/>' for share in (0.0, 0.5, 1.0)]
    for place in range(0, HOURS, 3):
        x, y = _point(place * step, _LABELS)
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" dy="0.35em">{place}</text>')
    if hour is not None:
        (x0, y0), (x1, y1) = _point(hour * step, _HOLE - 12), _point(hour * step, _RIM + 4)
        parts.append(f'<line class="hand" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
        parts.append(f'<text class="hour" dy="0.35em">{hour:02d}:00</text>')
    return Markup("".join([*parts, "</svg>"]))


def curves(series: Sequence[tuple[str, Sequence[float | None]]], top: float, title: str) -> Markup:
    """Series over one span of time as lines, each broken where it has no value.

    Args:
        series: (class, values) of each line, all of one length; the first is filled below.
        top: value at the upper edge; the lower one is 0.
        title: what a reader of the screen says.
    """
    width, height = 300.0, 64.0
    parts = [
        f'<svg class="curve" viewBox="0 -2 {width:g} {height + 4:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">',
        f'<line class="base" x1="0" x2="{width:g}" y1="{height:g}" y2="{height:g}"/>',
    ]
    span = max(top, 1e-12)
    for place, (kind, values) in enumerate(series):
        across = width / max(1, len(values) - 1)
        for first, run in _unbroken(values):
            points = [
                (across * (first + offset), height * (1 - min(1.0, max(0.0, value / span))))
                for offset, value in enumerate(run)
            ]
            if len(points) == 1:
                points.append((points[0][0] + across / 2, points[0][1]))
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            if place == 0:
                area = f"{points[0][0]:.1f},{height:g} {line} {points[-1][0]:.1f},{height:g}"
                parts.append(f'<polygon class="area {kind}" points="{area}"/>')
            parts.append(f'<polyline class="line {kind}" points="{line}"/>')
    return Markup("".join([*parts, "</svg>"]))


def _unbroken(values: Sequence[float | None]) -> list[tuple[int, list[float]]]:
    """Runs of values that are there, each with the place of its first."""
    runs: list[tuple[int, list[float]]] = []
    before: float | None = None
    for place, value in enumerate(values):
        if value is not None:
            if before is None:
                runs.append((place, []))
            runs[-1][1].append(value)
        before = value
    return runs


def _at(share: float) -> float:
    return _HOLE + (_RIM - _HOLE) * share


def _point(angle: float, radius: float) -> tuple[float, float]:
    """Clockwise from the top."""
    return radius * math.sin(angle), -radius * math.cos(angle)


def _sector(start: float, end: float, inner: float, outer: float) -> str:
    corners = [_point(start, inner), _point(start, outer), _point(end, outer), _point(end, inner)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    return (
        f"M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}A{outer:.1f} {outer:.1f} 0 0 1 {cx:.1f} {cy:.1f}"
        f"L{dx:.1f} {dy:.1f}A{inner:.1f} {inner:.1f} 0 0 0 {ax:.1f} {ay:.1f}Z"
    )
