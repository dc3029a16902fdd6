"""Where the records of serving lie, what stands at their head, and histories to ask with."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import stamp
from recsys.files import write_json
from recsys.recommender import Recommender

__all__ = ["FOLDER", "median", "merge", "quantiles", "raw_histories"]

FOLDER = RESULTS / "serving"


def raw_histories(model: Recommender, count: int, seed: int = 0, most: int | None = None) -> list[list[Any]]:
    """Histories of users of the model's log, drawn with replacement, as raw item ids, oldest first.

    Args:
        model: of a run.
        count: histories.
        seed: of the draw.
        most: only the newest so many events of each; None is all.
    """
    store, items = model.store_, model._names.items
    users = np.random.default_rng(seed).integers(0, store.n_users, count)
    cut = slice(None) if most is None else slice(-most, None)
    return [items.decode(store.history(int(user), "all").astype(np.int64)[cut]).to_list() for user in users]


def merge(path: Path, program: str, key: str, entries: dict[str, Any]) -> Path:
    """Write entries into a record, each in the place of an earlier one of its name; the others stay.

    Every entry gets time, commit and machine of its own, for they may be made on different days.
    """
    made = stamp()
    whole: dict[str, Any] = {"program": program, key: {}}
    if path.exists():
        whole = json.loads(path.read_text(encoding="utf-8"))
    whole[key] = {**whole[key], **{name: {**made, **entry} for name, entry in entries.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, whole)
    return path


def quantiles(seconds: "np.typing.ArrayLike") -> dict[str, float]:
    """Milliseconds: median, 90th and 99th percentile, greatest; nothing of no values."""
    values = 1e3 * np.asarray(seconds, dtype=np.float64)
    if not values.size:
        return {}
    names = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: float(f"{np.quantile(values, q):.4g}") for name, q in names.items()}


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every number that all rounds have, its median; what is nested likewise."""
    found: dict[str, Any] = {}
    for name, first in rounds[0].items():
        values = [one[name] for one in rounds if name in one]
        if len(values) < len(rounds):
            continue
        if isinstance(first, dict):
            found[name] = median(values)
        elif isinstance(first, int | float) and not isinstance(first, bool):
            found[name] = float(f"{np.median(values):.5g}")
        else:
            found[name] = first
    return found
