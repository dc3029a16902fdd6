"""Train the sides of a study, test them on the same targets, and pair their users."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys import Recommender, prepare
from recsys.benchmarks.columns.studies import Side, Study
from recsys.benchmarks.machine import stamp
from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary, user_vocabulary
from recsys.errors import DataError
from recsys.evaluation.bootstrap import confidence_intervals, paired_difference
from recsys.evaluation.metrics import per_user_metrics
from recsys.evaluation.targets import select_targets
from recsys.files import read_json, replacing, sha256_of, write_json

__all__ = ["measure", "summarize"]

RESAMPLES = 10_000
METRICS = ("hr@10", "ndcg@10")
SEEN = ("kept", "removed")
Users = dict[str, dict[str, NDArray[np.float64]]]
"""By seen rule and metric, (U,) float64 mean over the seeds of each user's."""


def measure(
    study: Study, seeds: Sequence[int], data: Path, runs: Path, say: Callable[[str], None] = print
) -> None:
    """Do what is not done of a study: each side with each seed leaves its figures and ranks in `runs`.

    Args:
        study: whose sides.
        seeds: of weights, batches and dropout.
        data: folder with ``LOG/interactions.parquet``.
        runs: folder of prepared logs and outcomes.
        say: told of every outcome.

    Raises:
        DataError: there is no such log.
    """
    path = data / study.log / "interactions.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such log; --data is a folder of logs, each in a folder of its name")
    sha256 = sha256_of(path)
    for seed in seeds:
        for side in study.sides:
            place = _place(runs, study, side, seed)
            if not place.with_suffix(".json").exists():
                outcome = _train(study, side, seed, _prepared(study, side, path, runs), place)
                write_json(place.with_suffix(".json"), {**stamp(), "sha256": sha256, **outcome})
            outcome = read_json(place.with_suffix(".json"))
            told = ", ".join(f"{name} {outcome[study.seen][name]:.4f}" for name in METRICS)
            say(f"{study.name}, {side.name}, seed {seed}: {told}, {outcome['seconds']:.0f} s")


def summarize(study: Study, seeds: Sequence[int], runs: Path) -> dict[str, Any]:
    """A study's record: figures of its sides, and paired tests of every two sides over the same users.

    Raises:
        DataError: the sides were not tested on the same users and items, or by other settings than said.
    """
    sides, users = [], {}
    for side in study.sides:
        places = [_place(runs, study, side, seed) for seed in seeds]
        outcomes = [read_json(place.with_suffix(".json")) for place in places]
        sides.append((side, outcomes))
        users[side.name] = _users([np.load(place.with_suffix(".npy")) for place in places])
    for name in ("targets", "settings"):
        if any(len({outcomes[n][name] for _, outcomes in sides}) != 1 for n in range(len(seeds))):
            raise DataError(f"{study.name}: its sides differ in their {name}")
    first = sides[0][1][0]
    return {
        "log": study.log,
        "sha256": first["sha256"],
        "about": study.about,
        "seen": study.seen,
        "counts": first["counts"],
        "popularity": first["popularity"],
        "encoder": dict(study.encoder),
        "training": dict(study.training),
        "seeds": list(seeds),
        "sides": [_told(side, outcomes, users[side.name]) for side, outcomes in sides],
        "resamples": RESAMPLES,
        "pairs": [
            {"a": a, "b": b, "seen": seen, **_test(users[a][seen], users[b][seen])}
            for b, a in combinations(users, 2)
            for seen in SEEN
        ],
    }


def _place(runs: Path, study: Study, side: Side, seed: int) -> Path:
    """Where an outcome lies: of its settings, so that one of others is not taken for it."""
    told = [study.prepare, study.encoder, study.training, side.prepare, side.encoder, study.about]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^a-z0-9]+", "-", side.name)
    return runs / study.name / f"{name}-{digest}-seed{seed}.json"


def _prepared(study: Study, side: Side, path: Path, runs: Path) -> SequenceStore:
    import polars as pl

    options: dict[str, Any] = {**study.prepare, **side.prepare}
    digest = hashlib.sha256(json.dumps([options, study.about], sort_keys=True).encode()).hexdigest()[:8]
    folder = runs / study.name / f"data-{digest}"
    if folder.is_dir():
        return SequenceStore.open(folder)
    return prepare(study.made(pl.read_parquet(path)), folder, name=study.name, **options)


def _train(study: Study, side: Side, seed: int, store: SequenceStore, place: Path) -> dict[str, Any]:
    """Train by a fixed number of epochs, test, write the ranks, and return the figures."""
    epochs = study.training["epochs"]
    model = Recommender(
        "sasrec",
        encoder_options={**study.encoder, **side.encoder},
        training_options={**study.training, "evaluate_every": epochs, "seed": seed},
        device="cpu",
    )
    encoder, training = model.configs(store)
    others = {name: value for name, value in to_dict(encoder).items() if name not in _DIFFER}
    began = time.process_time()
    model.fit(store)
    seconds = time.process_time() - began
    result = model.evaluate(ks=(10, 20))
    tested = select_targets(store)
    ids = [user_vocabulary(store).decode(tested.user), item_vocabulary(store).decode(tested.target)]
    with replacing(place.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
        np.save(file, np.stack([result.ranks[seen] for seen in SEEN]).astype(np.int32))
    return {
        "counts": {
            "users": store.n_users,
            "items": store.n_items,
            "events": store.n_events,
            "tested": len(tested.user),
        },
        "settings": _digest([others, to_dict(training)]),
        "targets": _digest([list(map(str, each)) for each in ids]),
        "seconds": seconds,
        "kept": result.metrics_seen_kept,
        "removed": result.metrics_seen_removed,
        "popularity": result.popularity,
    }


_DIFFER = ("event_columns", "request_columns", "clock", "repeat_by")
"""Settings of the encoder that sides may differ in."""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _users(tables: Sequence[NDArray[np.int32]]) -> Users:
    found: Users = {}
    for row, seen in enumerate(SEEN):
        each = [per_user_metrics(table[row], None, (10,)) for table in tables]
        found[seen] = {name: np.mean([one[name] for one in each], axis=0) for name in METRICS}
    return found


def _told(side: Side, outcomes: Sequence[Mapping[str, Any]], users: Users) -> dict[str, Any]:
    told: dict[str, Any] = {"name": side.name, "prepare": dict(side.prepare), "encoder": dict(side.encoder)}
    for seen in SEEN:
        told[seen] = {name: float(users[seen][name].mean()) for name in METRICS}
        told[seen]["intervals"] = confidence_intervals(users[seen], np.random.default_rng(0))
        told[seen]["seeds"] = [{name: outcome[seen][name] for name in METRICS} for outcome in outcomes]
    told["seconds"] = [outcome["seconds"] for outcome in outcomes]
    told["stamps"] = [{name: outcome[name] for name in ("utc", "commit")} for outcome in outcomes]
    return told


def _test(a: Mapping[str, NDArray[np.float64]], b: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """What a has over b, in each metric."""
    return {
        name: paired_difference(a[name], b[name], np.random.default_rng(0), resamples=RESAMPLES)._asdict()
        for name in METRICS
    }
