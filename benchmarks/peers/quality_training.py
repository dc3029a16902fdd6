"""The training of one side of a comparison of quality, and our ranks of what it has learned."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from recsys.benchmarks.peers.contest import say
from recsys.benchmarks.peers.environments import PeerUnavailable
from recsys.benchmarks.peers.process import PREPARE_TIMEOUT_S, SideError
from recsys.benchmarks.peers.quality_curves import Curve, Metrics, Point
from recsys.datasets.prepared.store import SequenceStore
from recsys.evaluation.evaluate import evaluate_scores

# A step or an epoch is finished before a side answers, on a machine that may be shared.
ANSWER_TIMEOUT_S = 1800.0
# Below any score that a model gives: items that a library never saw come last.
UNKNOWN = -1e30


class Side(Protocol):
    """What is asked and answers; a `SideProcess`."""

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its answer."""

    def close(self) -> None:
        """End it."""


class Ranking:
    """Our ranks of a peer's states and item vectors.

    Args:
        store: the prepared log, whose raw ids count from 1.
        path: where sides write; see `pace.QualitySide.measure`.
    """

    def __init__(self, store: SequenceStore, path: Path) -> None:
        self.path = path
        self._store = store
        users = pl.read_parquet(store.path / "users.parquet", glob=False)["user_id"]
        self._users = users.cast(pl.Int64).to_numpy() - 1
        items = pl.read_parquet(store.path / "items.parquet", glob=False)["item_id"]
        self._items = items.cast(pl.Int64).to_numpy() - 1

    def measure(self, split: str) -> Metrics:
        """Metrics at 10, by rule, of what lies in the file now."""
        with np.load(self.path) as found:
            states, known = found["states"][self._users], found["known"][self._items]
            vectors = np.ascontiguousarray(found["items"][self._items].T)

        def scores(rows: Any, targets: Any) -> Any:
            product = states[targets.user[rows]] @ vectors
            return np.where(known, product, np.float32(UNKNOWN)).astype(np.float64)

        result = evaluate_scores(
            scores,
            self._store,
            split=split,  # type: ignore[arg-type]
            ks=(10,),
            progress=False,
            resamples=0,
        )
        return {"kept": result.metrics_seen_kept, "removed": result.metrics_seen_removed}


def train(
    name: str,
    start: Callable[[], Side],
    task: dict[str, Any],
    batch_size: int,
    options: argparse.Namespace,
    rank: Ranking,
) -> Curve:
    """Train one side until its budget is used up or it is no longer better.

    Args:
        name: of the side.
        start: begins its process.
        task: what the side is told.
        batch_size: in the side's own unit.
        options: budget (``seconds``), ``every`` and ``patience`` in processor seconds of training.
        rank: metrics by rule on "valid" or "test", of the states that the side has written.
    """
    curve = Curve(side=name)
    side: Side | None = None
    try:
        say(f"{name}: preparing")
        side = start()
        curve.facts = side.ask({"op": "prepare", "task": task}, PREPARE_TIMEOUT_S)
        while not curve.stopped:
            request = {"op": "train", "every": options.every, "batch_size": batch_size}
            answer = side.ask(request, ANSWER_TIMEOUT_S)
            if answer.pop("ended"):
                curve.stopped = "all epochs done"
                break
            curve.set_up_cpu_seconds = answer.pop("set_up_cpu_seconds")
            better = curve.add(Point(**answer, valid=_measure(side, "valid", curve, rank)))
            if better:
                curve.test = _measure(side, "test", curve, rank)
            say(line(curve, better=better))
            curve.stopped = curve.over(seconds=options.seconds, patience=options.patience)
    except (SideError, PeerUnavailable) as error:
        curve.failure = str(error)
        say(f"{name}: left out from here: {error}")
    finally:
        if side is not None:
            side.close()
    return curve


def line(curve: Curve, *, better: bool) -> str:
    """The last point as a person reads it."""
    point = curve.points[-1]
    return (
        f"{curve.side}: {point.cpu_seconds:,.0f} s, epoch {curve.epochs():.2f}, validation NDCG@10 "
        f"{point.score('kept'):.4f} kept, {point.score('removed'):.4f} removed{' *' if better else ''}"
    )


def _measure(side: Side, split: str, curve: Curve, rank: Ranking) -> Metrics:
    """Metrics by rule, from the side itself or from the states that it writes; the time is counted apart."""
    answer = side.ask({"op": "measure", "split": split, "path": str(rank.path)}, ANSWER_TIMEOUT_S)
    started, cpu_started = time.perf_counter(), time.process_time()
    metrics: Metrics = answer.get("metrics") or rank.measure(split)
    curve.evaluation["seconds"] += answer["seconds"] + time.perf_counter() - started
    curve.evaluation["cpu_seconds"] += answer["cpu_seconds"] + time.process_time() - cpu_started
    return metrics
