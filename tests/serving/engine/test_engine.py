"""The engine answers what `recommend` answers, with what came in meanwhile, and says what it cannot."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import Recommender
from recsys.errors import ArgumentError, RunError, UnknownIdError
from recsys.events.store import Event, EventStoreError
from recsys.run_folder import RunFolder
from recsys.serving.engine.asking import Answered, Ask, BusyError
from recsys.serving.engine.assignment import Assignment, Place
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.engine.observing import Silent
from recsys.serving.settings import ServeSettings
from tests.serving.doubles import MemoryEvents
from tests.serving.engine.runs import answered, engine_of, saved_run

LATER = 2_000_000_000


class Told(Silent):
    """What an observer was told of a batch."""

    def __init__(self) -> None:
        self.caches: list[tuple[int, int]] = []
        self.unknown = 0
        self.answers_kept = 0
        self.stages: set[str] = set()
        self.reasons: list[str] = []
        self.searches: list[dict[str, int]] = []

    def cache(self, hits: int, misses: int, evictions: int, kept_bytes: int) -> None:
        self.caches.append((hits, misses))

    def searched(self, counts: dict[str, int]) -> None:
        self.searches.append(counts)

    def unknown_items(self, count: int) -> None:
        self.unknown += count

    def stage(self, name: str, seconds: float) -> None:
        self.stages.add(name)

    def kept_answer(self) -> None:
        self.answers_kept += 1

    def fallback(self, reason: str) -> None:
        self.reasons.append(reason)

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(Path(tmp_path_factory.mktemp("engine")) / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture
def events() -> MemoryEvents:
    return MemoryEvents()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def engine(run: Path, events: MemoryEvents, told: Told) -> Iterator[ServingEngine]:
    made = engine_of(run, events, told)
    told.__init__()  # type: ignore[misc]
    yield made
    made.end()


def ask(engine: ServingEngine, **asked: Any) -> Answered:
    return asyncio.run(engine.recommend(Ask(**asked)))


def rows(found: Answered) -> list[tuple[Any, ...]]:
    assert [item.rank for item in found.items] == list(range(1, len(found.items) + 1))
    return [(item.id, item.score, item.title) for item in found.items]


def log_of(model: Recommender, user: int) -> list[int]:
    start, end = model.store_.offsets[user : user + 2]
    return [int(item) for item in model.store_.items[start:end]]


def test_a_user_of_the_log_gets_the_same_bits_as_from_recommend(
    engine: ServingEngine, model: Recommender
) -> None:
    found = ask(engine, user=3, k=5)
    assert rows(found) == answered(model, [log_of(model, 3)], k=5)[0]
    assert found.model == "default"
    assert found.version == engine.models()[0].version
    assert (found.last_seq, found.fallback, found.batch, found.cached) == (0, None, 1, False)
    assert found.history.events == len(log_of(model, 3))
    assert found.history.encoded == min(16, found.history.events)


def test_an_event_is_in_the_next_answer(
    engine: ServingEngine, events: MemoryEvents, model: Recommender
) -> None:
    before = ask(engine, user=3, k=8)
    best = int(before.items[0].id)
    last = events.append([Event(3, best, LATER), Event(4, 1, LATER)]).last_seq
    found = ask(engine, user=3, k=8)
    assert rows(found) == answered(model, [[*log_of(model, 3), best]], k=8)[0]
    assert best not in [item.id for item in found.items]
    assert found.last_seq == last - 1
    assert found.history.events == before.history.events + 1


def test_a_user_whom_the_log_does_not_know_is_answered_from_what_came_in(
    engine: ServingEngine, events: MemoryEvents, model: Recommender, told: Told
) -> None:
    nothing = ask(engine, user=777, k=4)
    assert nothing.fallback == "popular"
    assert told.reasons == ["popular"]
    events.append([Event(777, 5, LATER + 9), Event(777, 8, LATER), Event(777, 9, LATER + 9)])
    found = ask(engine, user=777, k=4)
    assert found.fallback is None
    assert rows(found) == answered(model, [[8, 5, 9]], k=4)[0]


def test_what_is_given_comes_after_log_and_events(
    engine: ServingEngine, events: MemoryEvents, model: Recommender
) -> None:
    events.append([Event(3, 7, LATER)])
    found = ask(engine, user=3, history=[1, 2], k=4)
    assert rows(found) == answered(model, [[*log_of(model, 3), 7, 1, 2]], k=4)[0]
    alone = ask(engine, history=[1, 2], k=4)
    assert rows(alone) == answered(model, [[1, 2]], k=4)[0]
    assert alone.last_seq == 0


def test_late_events_are_put_where_their_time_is(
    engine: ServingEngine, events: MemoryEvents, model: Recommender
) -> None:
    start, end = model.store_.offsets[3:5]
    assert model.store_.timestamps is not None
    times = model.store_.timestamps[start:end].tolist()
    events.append([Event(3, 7, times[0] + 1)])
    logged = log_of(model, 3)
    place = next(n for n, time in enumerate(times) if time > times[0] + 1)
    found = ask(engine, user=3, k=4)
    assert rows(found) == answered(model, [[*logged[:place], 7, *logged[place:]]], k=4)[0]


def test_unknown_items_are_kept_out_and_counted(
    engine: ServingEngine, events: MemoryEvents, model: Recommender, told: Told
) -> None:
    events.append([Event(3, 999, LATER), Event(3, 7, LATER + 1)])
    found = ask(engine, user=3, k=4)
    assert found.history.unknown == (999,)
    assert found.history.events == len(log_of(model, 3)) + 2
    assert rows(found) == answered(model, [[*log_of(model, 3), 7]], k=4)[0]
    assert told.unknown == 1


def test_items_added_since_are_seen_though_nothing_encodes_them(run: Path, events: MemoryEvents) -> None:
    engine = engine_of(run, events)
    try:
        loaded = engine._in_service().places[0].served.model
        loaded.add_items([500], like=[[5]])
        everything = [item.id for item in ask(engine, user=3, k=30).items]
        assert 500 in everything
        events.append([Event(3, 500, LATER)])
        assert [item.id for item in ask(engine, user=3, k=30).items] == [i for i in everything if i != 500]
        assert 500 in [item.id for item in ask(engine, user=3, k=30, exclude_seen=False).items]
    finally:
        engine.end()


def test_nothing_of_the_log_is_read_of_a_user_who_was_erased(
    engine: ServingEngine, events: MemoryEvents, model: Recommender
) -> None:
    events.append([Event(3, 7, LATER)])
    events.erase(3)
    gone = ask(engine, user=3, k=4)
    assert (gone.fallback, gone.history.events) == ("popular", 0)
    assert asyncio.run(engine.history(3)) == []
    assert 3 not in asyncio.run(engine.search_users("3", 40))
    with pytest.raises(UnknownIdError, match="erased"):
        asyncio.run(engine.clock(3))
    events.append([Event(3, 2, LATER)])
    assert rows(ask(engine, user=3, k=4)) == answered(model, [[2]], k=4)[0]


def test_what_is_asked_again_is_not_encoded_again(
    engine: ServingEngine, events: MemoryEvents, told: Told
) -> None:
    first = ask(engine, user=3, k=5)
    again = ask(engine, user=3, k=9, deny=[first.items[0].id])
    assert (first.cached, again.cached) == (False, True)
    events.append([Event(3, 7, LATER)])
    assert not ask(engine, user=3, k=5).cached
    assert told.caches == [(0, 1), (1, 0), (0, 1)]
    assert told.stages == {"ids", "encode", "search", "names"}


def test_an_answer_is_kept_until_something_comes_in_of_the_user(
    engine: ServingEngine, events: MemoryEvents, model: Recommender, told: Told
) -> None:
    events.append([Event(3, 7, LATER)])
    first = ask(engine, user=3, k=5, request_id="first")
    events.append([Event(4, 1, LATER)])
    again = ask(engine, user=3, k=5, request_id="again")
    assert again == replace(first, batch=0, queue_ms=0.0, cached=True)
    assert (told.answers_kept, told.caches) == (1, [(0, 1)])
    assert [own.request_id for own in engine._recent] == ["first", "again"]
    events.append([Event(3, 9, LATER)])
    assert rows(ask(engine, user=3, k=5)) == answered(model, [[*log_of(model, 3), 7, 9]], k=5)[0]
    events.erase(3)
    events.append([Event(3, 9, LATER)])
    alone = answered(model, [[9]], k=5)[0]
    assert [rows(ask(engine, user=3, k=5)) for _ in range(2)] == [alone, alone]
    assert told.answers_kept == 2


def test_a_kept_answer_is_of_the_model_in_service(engine: ServingEngine, told: Told) -> None:
    ask(engine, user=3)
    (place,) = engine._in_service().places
    engine._models.assignment = Assignment((replace(place, served=replace(place.served, name="other")),))
    assert ask(engine, user=3).model == "other"
    engine._models.assignment = Assignment((place,))
    assert ask(engine, user=3).model == "default"
    assert told.answers_kept == 1


def test_the_same_user_twice_in_a_batch_is_encoded_once(
    engine: ServingEngine, model: Recommender, told: Told
) -> None:
    found = asyncio.run(engine.recommend_many([Ask(user=3, k=2), Ask(user=3, k=4), Ask(user=5, k=3)]))
    for own, user, k in zip(found, (3, 3, 5), (2, 4, 3), strict=True):
        assert isinstance(own, Answered)
        wanted = answered(model, [log_of(model, user)], k=k)[0]
        assert [item.id for item in own.items] == [item for item, _, _ in wanted]
        np.testing.assert_allclose([i.score for i in own.items], [s for _, s, _ in wanted], rtol=1e-5)
        assert own.batch == 3


def test_in_a_batch_each_mistake_is_its_own(engine: ServingEngine) -> None:
    asks = [Ask(user=3, category=["nothing"]), Ask(user=3), Ask(user=3, model="b"), Ask(user=3, k=0)]
    found = asyncio.run(engine.recommend_many(asks))
    assert [type(own).__name__ for own in found] == [
        "UnknownIdError",
        "Answered",
        "UnknownIdError",
        "ArgumentError",
    ]
    assert "choose one of default" in str(found[2])


def test_a_store_that_cannot_be_read_is_said_so(
    engine: ServingEngine, events: MemoryEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(user: Any, after: int = 0) -> Any:
        raise EventStoreError("events: the disk is gone; mount it")

    monkeypatch.setattr(events, "tail", broken)
    found = asyncio.run(engine.recommend_many([Ask(user=3), Ask(history=[1])]))
    assert isinstance(found[0], EventStoreError)
    assert isinstance(found[1], Answered)


def test_events_that_the_log_holds_are_not_read_again(run: Path, events: MemoryEvents) -> None:
    events.append([Event(3, 7, LATER), Event(3, 8, LATER)])
    engine = engine_of(run, events)
    try:
        assert ask(engine, user=3).last_seq == 2
        served = engine._in_service().places[0].served
        for watermark, count in ((("memory", 1), 1), (("memory", 2), 0), (("another", 2), 2)):
            another = replace(served, watermark=watermark)
            engine._models.assignment = Assignment((Place(another),))
            found = ask(engine, user=3)
            assert found.history.events - len(log_of(served.model, 3)) == count
    finally:
        engine.end()


def test_a_store_from_before_its_log_gives_no_place_that_the_log_holds(
    tmp_path: Path, events: MemoryEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy that was put back: what comes in then would count as read with the log."""
    run = saved_run(tmp_path / "run")
    place = RunFolder(run).data / "meta.json"
    meta = json.loads(place.read_text())
    place.write_text(json.dumps(meta | {"events": {"store": "memory", "through": 50}}))
    events.append([Event(3, 7, LATER)])
    engine = engine_of(run, events)
    try:
        assert events.last_seq() == 50
        assert "before place 50" in caplog.text
        assert ask(engine, user=3).last_seq == 0
        last = events.append([Event(3, 8, LATER)]).last_seq
        assert ask(engine, user=3).last_seq == last == 51
    finally:
        engine.end()


def test_searches_are_told_of_by_how_the_index_answered(engine: ServingEngine, told: Told) -> None:
    def since() -> int:
        told.searches.clear()
        engine.tell_searches()
        assert all(count > 0 for own in told.searches for count in own.values())
        return sum(count for own in told.searches for count in own.values())

    since()
    assert since() == 0
    ask(engine, user=3, k=5)
    ask(engine, user=4, k=5, allow=[1, 2, 3])
    assert since() == 2
    assert since() == 0


def test_a_text_that_spells_a_user_is_that_user(engine: ServingEngine, events: MemoryEvents) -> None:
    events.append([Event(3, 7, LATER)])
    spelled = ask(engine, user="3")
    assert rows(spelled) == rows(ask(engine, user=3))
    assert spelled.last_seq == 1


def test_neighbours_states_and_names(engine: ServingEngine, model: Recommender) -> None:
    near = asyncio.run(engine.similar(4, 3))
    frame = model.similar_items([4], 3)
    assert [item.id for item in near] == frame["similar_item_id"].to_list()
    assert [item.title for item in near] == frame["title"].to_list()
    with pytest.raises(UnknownIdError, match="99"):
        asyncio.run(engine.similar(99, 3))
    states = asyncio.run(engine.encode([[1, 2], [3]]))
    alone = asyncio.run(engine.encode([[3]]))
    assert states.shape == (2, 16)
    np.testing.assert_allclose(states[1:], alone, rtol=1e-5, atol=1e-6)
    with pytest.raises(UnknownIdError, match="history 1 holds 99"):
        asyncio.run(engine.encode([[1], [99]]))
    with pytest.raises(ArgumentError, match="history 0 is empty"):
        asyncio.run(engine.encode([[]]))
    assert asyncio.run(engine.title([1, 4, 99])) == ["T1", None, None]
    history = asyncio.run(engine.history(3))
    assert [item for item, _ in history] == log_of(model, 3)
    assert [time for _, time in history] == sorted(time for _, time in history if time is not None)
    assert asyncio.run(engine.search_users("1", 3)) == [1, 10, 11]
    assert [item.id for item in asyncio.run(engine.search_items("t19", 3))] == [19]
    assert {item.id for item in asyncio.run(engine.search_items("1", 30))} == {1, *range(10, 20)}
    with pytest.raises(ArgumentError, match="no interest clock"):
        asyncio.run(engine.clock(3))


def test_before_the_first_model_nothing_is_taken(run: Path, told: Told) -> None:
    engine = ServingEngine(ServeSettings(models=(("default", str(run), 1.0),)), None, told)
    try:
        assert engine.ready() == "loading"
        assert engine.models() == ()
        with pytest.raises(BusyError, match="loading"):
            ask(engine, user=3)
        assert told.reasons == ["not_ready"]
        engine.load()
        assert engine.ready() is None
        (info,) = engine.models()
        assert (info.n_items, info.n_users, info.width, info.ids_are_int) == (20, 40, 16, True)
        assert info.categories == ("a", "b", "c")
    finally:
        engine.end()


def test_a_run_that_is_none_serves_nothing(tmp_path: Path) -> None:
    engine = ServingEngine(ServeSettings(models=(("default", str(tmp_path / "none"), 1.0),)))
    try:
        with pytest.raises(RunError, match="none"):
            engine.load()
        assert engine.ready() == "loading"
    finally:
        engine.end()
