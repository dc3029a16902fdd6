"""The last minutes as panels: a figure, what it is of, and its curve."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recsys.serving.http.traffic import Curves
from recsys.serving.page.svg import curves

_RECENT = 10
"""Seconds that the figure beside a curve sums up."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the curves.

    Attributes:
        name: what it shows.
        now: the figure of the last ten seconds.
        note: more of them.
        top: what the upper edge stands for.
        drawing: the curve.
    """

    name: str
    now: str
    note: str
    top: str
    drawing: Markup


def panels(found: Curves) -> list[Panel]:
    """Requests, times, batches and kept vectors of the last minutes."""
    rate = sum(found.requests[-_RECENT:]) / _RECENT
    errors = sum(found.errors[-_RECENT:])
    p50, p99 = _recent(found.p50), _recent(found.p99)
    batch, kept = _recent(found.batch_mean), _recent(found.kept)
    millis = [[None if value is None else 1000 * value for value in each] for each in (found.p99, found.p50)]
    most, slowest = _top(found.requests, 5), _top(millis[0], 5)
    largest = _top(found.batch_largest, 4)
    return [
        _panel(
            "Requests", f"{rate:.1f}/s", f"{errors:.0f} failed" if errors else "none failed", f"{most:g}/s",
            [("requests", found.requests), ("errors", [value or None for value in found.errors])], most,
        ),
        _panel(
            "Time to answer",
            _millis(p50),
            f"p99 {_millis(p99)}",
            f"{slowest:g} ms",
            [("p99", millis[0]), ("p50", millis[1])],
            slowest,
        ),
        _panel(
            "Requests a batch",
            "—" if batch is None else f"{batch:.1f}",
            "largest " + ("—" if (high := _highest(found.batch_largest)) is None else f"{high:.0f}"),
            f"{largest:g}",
            [("largest", found.batch_largest), ("mean", found.batch_mean)],
            largest,
        ),
        _panel(
            "Vectors kept",
            "—" if kept is None else f"{kept:.0%}",
            "users not encoded anew",
            "100%",
            [("kept", found.kept)],
            1.0,
        ),
    ]  # fmt: skip


def _panel(
    name: str,
    now: str,
    note: str,
    top: str,
    series: Sequence[tuple[str, Sequence[float | None]]],
    height: float,
) -> Panel:
    title = f"{name}, last {len(series[0][1]) // 60} minutes; now {now}, {note}; upper edge {top}"
    return Panel(name, now, note, top, curves(series, height, title))


def _recent(values: Sequence[float | None]) -> float | None:
    held = [value for value in values[-_RECENT:] if value is not None]
    return sum(held) / len(held) if held else None


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values[-_RECENT:] if value is not None), default=None)


def _top(values: Sequence[float | None], least: float) -> float:
    """A round number that no value exceeds: 1, 2 or 5 times a power of ten."""
    high = max((value for value in values if value is not None), default=0.0)
    top = 1.0
    while top < max(high, least):
        top *= 2.5 if f"{top:g}"[0] == "2" else 2.0
    return top


def _millis(seconds: float | None) -> str:
    return "—" if seconds is None else f"{1000 * seconds:.3g} ms"
