"""Run folders of small models of random weights, for tests of what serves them."""

from pathlib import Path
from typing import Any

import recsys
from recsys import Recommender
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.settings import ServeSettings
from tests.answering.models import day_log, random_model


def saved_run(folder: Path, name: str = "sasrec", **encoder_options: Any) -> Path:
    """A run of 40 users and 20 items with times in one zone, titles and categories."""
    log, items = day_log()
    data = folder.with_name(f"{folder.name}-data")
    recsys.prepare(log, data, items=items, time_zone="-05:00")
    random_model(name, data, **encoder_options).save(folder)
    return folder


def engine_of(
    run: Path,
    events: Any = None,
    observer: Any = None,
    folder: Path | None = None,
    **settings: Any,
) -> ServingEngine:
    """An engine that has loaded a run."""
    given: dict[str, Any] = {"models": (("default", str(run), 1.0),), "deadline": 60.0} | settings
    engine = ServingEngine(ServeSettings(**given), events, observer, folder)
    try:
        engine.load()
    except BaseException:
        engine.end()
        raise
    return engine


def answered(model: Recommender, histories: list[list[int]], **asked: Any) -> list[list[tuple[Any, ...]]]:
    """(item, score, title) of what `recommend` gives for histories, request by request."""
    frame = model.recommend(histories=histories, **asked)
    columns = ("user_id", "item_id", "score", "title")
    rows = zip(*(frame[name].to_list() for name in columns), strict=True)
    found: list[list[tuple[Any, ...]]] = [[] for _ in histories]
    for place, item, score, title in rows:
        found[place].append((item, score, title))
    return found
