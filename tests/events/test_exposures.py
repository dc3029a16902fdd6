"""Answers kept beside events, in both stores: bounded, erased with their user, joined to events."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import ArgumentError, DataError
from recsys.events import postgres, sql_store, sqlite
from recsys.events.exposure_log import write_exposures
from recsys.events.exposures import SKEW, Exposure, ExposureStore
from recsys.events.sqlite import SqliteStore
from recsys.events.store import Event, EventStore, StoreFullError
from recsys.serving.engine import exposing
from recsys.serving.engine.asking import Answered, Ask, HistoryRead, Item
from recsys.serving.engine.exposing import Exposures
from recsys.serving.engine.observing import Silent
from tests.serving.engine.runs import engine_of, saved_run

FIRST = Exposure(request_id="r1", user=7, model="a", version="v1", items=(3, 1, 2), time=100)
SHADOW = replace(FIRST, model="b", version="v2", items=(1, 9), shadow=True)
NOBODY = Exposure(request_id="r2", user=None, model="a", version="v1", items=(5,), time=101)


def kept(store: EventStore) -> list[Exposure]:
    assert isinstance(store, ExposureStore)
    return [own for part in store.exposures() for own in part]


def test_exposures_come_back_as_they_were_and_go_with_their_user(events: EventStore) -> None:
    assert isinstance(events, ExposureStore)
    text = replace(FIRST, request_id="r3", user="7", items=("3",))
    events.expose([FIRST, SHADOW])
    events.expose([NOBODY, text])
    assert kept(events) == [FIRST, SHADOW, NOBODY, text]
    events.erase(7)
    assert kept(events) == [NOBODY, text]


def test_what_waited_while_its_user_was_erased_is_not_kept(events: EventStore) -> None:
    """Answers from before an erasure, in whichever process they waited; later ones are kept again."""
    assert isinstance(events, ExposureStore)
    now = int(time.time())
    events.erase(7)
    before = replace(FIRST, time=now - 1)
    others = [replace(before, request_id="r2", user=8), replace(before, request_id="r3", user="7"), NOBODY]
    events.expose([before, replace(before, time=now), *others])
    assert kept(events) == others
    later = replace(FIRST, request_id="r4", time=now + SKEW + 5)
    events.expose([later])
    assert kept(events) == [*others, later]


def test_a_statement_that_fails_leaves_nothing_begun(events: EventStore) -> None:
    """Not every error ends a transaction by itself: the next one would begin within it."""
    assert isinstance(events, ExposureStore)
    nameless = replace(FIRST, request_id=None)  # type: ignore[arg-type]
    with pytest.raises(StoreFullError, match="cannot be written"):
        events.expose([FIRST, nameless])
    assert kept(events) == []
    assert events.append([Event(7, 1, 105)])[:2] == (1, 0)
    events.expose([SHADOW])
    assert kept(events) == [SHADOW]


def test_the_oldest_make_room(events: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(events, ExposureStore)
    for module in (sqlite, postgres):
        monkeypatch.setattr(module, "KEPT", 3)
    monkeypatch.setattr(sql_store, "PART", 2)
    rows = [replace(FIRST, request_id=f"r{number}") for number in range(8)]
    for row in rows:
        events.expose([row])
    assert kept(events) == rows[5:]


def test_a_file_joins_answers_to_what_came_of_them(events: EventStore, tmp_path: Path) -> None:
    assert isinstance(events, ExposureStore)
    out = tmp_path / "exposures.parquet"
    with pytest.raises(DataError, match="holds no exposure yet"):
        write_exposures(events, out)
    assert not out.exists()
    with pytest.raises(ArgumentError, match=r"ends in \.parquet"):
        write_exposures(events, tmp_path / "exposures.csv")
    events.append([Event(7, 1, 105, request_id="r1"), Event(7, 4, 106), Event(8, 2, 107, request_id="r9")])
    events.expose([FIRST, SHADOW, NOBODY])
    assert write_exposures(events, out) == 3
    found = pl.read_parquet(out)
    assert found["request_id"].to_list() == ["r1", "r1", "r2"]
    assert found["user_id"].to_list() == [7, 7, None]
    assert found["items"].to_list() == [[3, 1, 2], [1, 9], [5]]
    assert found["shadow"].to_list() == [False, True, False]
    assert found["chosen"].to_list() == [[1], [1], []]
    events.expose([replace(FIRST, items=("1",))])
    with pytest.raises(DataError, match="item ids of the exposures are numbers and text"):
        write_exposures(events, out)


class Told(Silent):
    """Sums of what an observer was told."""

    def __init__(self) -> None:
        self.kept = self.dropped = 0

    def exposed(self, kept: int, dropped: int) -> None:
        self.kept += kept
        self.dropped += dropped


def answer(*items: int) -> Answered:
    return Answered("a", "v1", tuple(Item(i, 1.0, n) for n, i in enumerate(items, 1)), HistoryRead(0, 0))


class Slow:
    """Writes when it is let, or fails."""

    def __init__(self) -> None:
        self.may, self.full = threading.Event(), False
        self.rows: list[Exposure] = []

    def expose(self, exposures: list[Exposure]) -> None:
        self.may.wait(10)
        if self.full:
            raise StoreFullError("no room")
        self.rows += exposures


def test_what_is_behind_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposing, "ROOM", 4)
    monkeypatch.setattr(exposing, "PAUSE", 60)
    store, told = Slow(), Told()
    exposures = Exposures(store, told)  # type: ignore[arg-type]
    for number in range(6):
        exposures.add(Ask(user=1, request_id=f"r{number}"), answer(number))
    exposures.add(Ask(user=1), answer(1))  # nothing could name it
    assert told.dropped == 2
    store.may.set()
    exposures.end(10)
    assert [row.request_id for row in store.rows] == ["r0", "r1", "r2", "r3"]
    assert (told.kept, told.dropped) == (4, 2)


def test_a_full_disk_is_counted_and_hurts_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposing, "PAUSE", 60)
    store, told = Slow(), Told()
    store.full = True
    store.may.set()
    exposures = Exposures(store, told)  # type: ignore[arg-type]
    exposures.add(Ask(user=1, request_id="r"), answer(1))
    exposures.end(10)
    assert (told.kept, told.dropped, store.rows) == (0, 1, [])


def test_an_engine_keeps_what_it_answers_and_what_a_shadow_would(tmp_path: Path) -> None:
    run, other = saved_run(tmp_path / "run"), saved_run(tmp_path / "other", d_model=8)
    store = SqliteStore(tmp_path / "events.db")
    engine = engine_of(run, store, shadows=(("beside", str(other), 100.0),))
    try:

        async def ask() -> list[Answered]:
            asks = [Ask(user=1, k=3, request_id="r1"), Ask(history=[2, 3], k=2, request_id="r2")]
            found = [await engine.recommend(own) for own in asks]
            await asyncio.gather(*engine._beside)
            return found

        first, second = asyncio.run(ask())
        engine.end()
        sent = [row for row in kept(store) if not row.shadow]
        assert [(row.request_id, row.user, row.model) for row in sent] == [
            ("r1", 1, "default"),
            ("r2", None, "default"),
        ]
        for row, answer in zip(sent, (first, second), strict=True):
            assert (row.items, row.version) == (tuple(item.id for item in answer.items), answer.version)
        beside = [row for row in kept(store) if row.shadow]
        assert [(row.request_id, row.model, len(row.items)) for row in beside] == [
            ("r1", "beside", 3),
            ("r2", "beside", 2),
        ]
    finally:
        engine.end()
        store.close()
