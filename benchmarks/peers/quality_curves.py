"""What whole trainings are judged by: points of a curve, when to stop, and the cost of a peer's quality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RULES = ("kept", "removed")
SELECTED = "removed"
METRIC = "ndcg@10"
Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A side where it stood when its training was held up.

    Attributes:
        seconds, cpu_seconds: of training until here; processor seconds are those of all threads.
        events, steps: supervised and taken until here.
        peak_mib: largest resident size of the training process until here.
        valid: metrics on the validation events, by rule.
    """

    seconds: float
    cpu_seconds: float
    events: int
    steps: int
    peak_mib: float
    valid: Metrics

    def score(self, rule: str = SELECTED) -> float:
        """Validation NDCG@10."""
        return self.valid[rule][METRIC]


@dataclass(kw_only=True)
class Curve:
    """A side's training; ``failure`` says in one line why it ended early or never began.

    Attributes:
        side: its name.
        facts: what the side says of itself.
        points: in the order of training.
        best: the point of the best validation, by the selected rule; the first one of equals.
        test: metrics on the test events at ``best``.
        stopped: why training ended.
        evaluation: wall and processor seconds of all evaluations, ours and theirs.
        set_up_cpu_seconds: processor seconds of the library's set-up between data and first step.
    """

    side: str
    facts: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    best: Point | None = None
    test: Metrics = field(default_factory=dict)
    stopped: str = ""
    evaluation: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "cpu_seconds": 0.0})
    set_up_cpu_seconds: float = 0.0
    failure: str | None = None

    def add(self, point: Point) -> bool:
        """Take the next point and say whether it is the best so far."""
        self.points.append(point)
        if self.best is not None and point.score() <= self.best.score():
            return False
        self.best = point
        return True

    def over(self, *, seconds: float, patience: float) -> str:
        """Why training is to end now, or nothing.

        Args:
            seconds: budget of processor seconds.
            patience: processor seconds without a better validation.
        """
        last = self.points[-1]
        if last.cpu_seconds >= seconds:
            return "budget used up"
        if self.best is not None and last.cpu_seconds - self.best.cpu_seconds >= patience:
            return "no longer better"
        return ""

    def reached(self, score: float, rule: str = SELECTED) -> Point | None:
        """The first point whose validation NDCG@10 is at least ``score``."""
        return next((point for point in self.points if point.score(rule) >= score), None)

    def epochs(self) -> float:
        """Passes over the training events until the last point."""
        return float(self.points[-1].events / max(self.facts["training_events"], 1))


def costs(ours: Sequence[Curve], peers: Sequence[Curve]) -> list[dict[str, Any]]:
    """What ours needs to reach each peer's best validation NDCG@10, beside what the peer needed.

    Args:
        ours: curves with at least one point.
        peers: the same.

    Returns:
        A row per peer, curve of ours and rule: ``score`` to reach, ``peer`` and ``ours`` (cpu_seconds,
        seconds, peak_mib at the first point there; ours None if it never got there) and ``times``: the
        peer's figure over ours, above 1 where ours needs less.
    """
    rows = []
    for peer in peers:
        for own in ours:
            for rule in RULES:
                score = max(point.score(rule) for point in peer.points)
                theirs, here = peer.reached(score, rule), own.reached(score, rule)
                assert theirs is not None
                there = _cost(theirs)
                mine = None if here is None else _cost(here)
                rows.append(
                    {
                        "peer": peer.side,
                        "side": own.side,
                        "seen": rule,
                        "score": score,
                        "peer_needed": there,
                        "ours_needed": mine,
                        "times": None if mine is None else _over(there, mine),
                    }
                )
    return rows


def _cost(point: Point) -> dict[str, float]:
    return {"cpu_seconds": point.cpu_seconds, "seconds": point.seconds, "peak_mib": point.peak_mib}


def _over(theirs: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, float]:
    return {key: theirs[key] / ours[key] for key in theirs}
