"""Requests answered together get what `recommend` gives each of them alone."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsys
from recsys import Recommender
from recsys.answering.each import Answer, Request
from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from tests.answering.models import N_ITEMS, day_log, random_model

NEW = 77
"""An item that is added."""
LATER = 1_900_000_000
"""After all events of the log."""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("sasrec", {}),
    "mamba": ("mamba", {}),
    "bert4rec": ("bert4rec", {}),
    "sasrec with clock": ("sasrec", {"clock": "pool"}),
    "bert4rec with hours": ("bert4rec", {"clock": "hours"}),
    "bert4rec with time bias": ("bert4rec", {"time_bias": 8}),
    "latent": ("sasrec", {}),
    "changed": ("sasrec", {}),
    "text ids": ("sasrec", {}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("each") / "data")
    log, items = day_log()
    recsys.prepare(log, folder, items=items, time_zone="-05:00")
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest, data: Path) -> Recommender:
    name, options = KINDS[request.param]
    if request.param == "text ids":
        log, items = (frame.with_columns(item_id=frame["item_id"].cast(str)) for frame in day_log())
        data = recsys.prepare(log, data.parent / "text", items=items, time_zone="-05:00").path
    made = random_model(name, data, **options)
    if request.param == "latent":
        made.build_index("exact", vectors="latent")
    if request.param == "changed":
        made.add_items([NEW, 3], like=[[1, 2], [4]])
        made.remove_items([5, 6])
    return made


def a_request(model: Recommender) -> st.SearchStrategy[Request]:
    """Requests of users of the log, new users and nobody, under any filters."""
    reads_time = model.encoder_.reads_request_time
    item = st.integers(0, N_ITEMS - 1) | st.just(1234)
    users = [*model._names.users.decode(np.arange(5)).to_list(), 999, None]

    def with_times(history: list[int], step: int) -> dict[str, Any]:
        return {"history": history, "times": [LATER + 10**6 + step * n for n in range(len(history))]}

    histories = st.builds(with_times, st.lists(item, max_size=20), st.integers(0, 9000))
    parts: dict[str, st.SearchStrategy[Any]] = {
        "user": st.sampled_from(users),
        "log": st.booleans(),
        "since": st.lists(st.tuples(item, st.integers(LATER, LATER + 10**6)), max_size=3).map(
            lambda events: sorted(events, key=lambda event: event[1])
        ),
        "at": st.sampled_from([None, LATER + 10**7, "2031-03-01T20:00"] if reads_time else [None]),
        "time_zone": st.sampled_from([None, "+02:00", "America/New_York"]),
        "k": st.sampled_from([1, 3, 8, 40]),
        "exclude_seen": st.booleans(),
        "allow": st.none() | st.lists(item, max_size=12),
        "deny": st.none() | st.lists(item, max_size=5),
        "category": st.sampled_from([None, "a", "b", ["b", "c"]]),
        "interests": st.sampled_from([1, 1, 3]),
    }

    def made(history: dict[str, Any], own: dict[str, Any]) -> Request:
        request = Request(**history, **own)
        mixed = in_log(model, request) and len(request.since) + len(history["history"]) > 0
        # Events of the log keep its zone; a history of `recommend` has one zone.
        return dataclasses.replace(request, time_zone=None) if mixed else request

    return st.builds(made, histories, st.fixed_dictionaries(parts))


def in_log(model: Recommender, request: Request) -> bool:
    """Whether the log's events of the user are part of a request."""
    known = request.user is not None and int(model._names.users.encode([request.user])[0]) >= 0
    return known and request.log


def whole_history(model: Recommender, request: Request) -> tuple[list[Any], list[int]]:
    """Items and times of all that a request is about."""
    items, times = [], []
    store = model.store_
    if in_log(model, request):
        row = int(model._names.users.encode([request.user])[0])
        assert store.timestamps is not None
        span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
        items = model._names.items.decode(store.items[span]).to_list()
        times = store.timestamps[span].tolist()
    items += [item for item, _ in request.since]
    times += [time for _, time in request.since]
    return [*items, *request.history], [*times, *(request.times or [])]


def alone(model: Recommender, request: Request) -> tuple[list[Any], Any, list[Any], list[Any]]:
    """Ids, scores, titles and sources that `recommend` gives."""
    items, times = whole_history(model, request)
    names = ("at", "time_zone", "k", "exclude_seen", "allow", "deny", "category", "interests")
    options = {name: getattr(request, name) for name in names}
    # A moment means nothing to a request of which nothing is known.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if in_log(model, request) and not request.since and not request.history:
            found = model.recommend(users=[request.user], on_unknown="ignore", **options)
        else:
            found = model.recommend(histories=[items], times=[times], on_unknown="ignore", **options)
    return (
        found["item_id"].to_list(),
        found["score"].to_numpy(),
        found["title"].to_list(),
        found["source"].to_list(),
    )


@settings(max_examples=20)
@given(drawn=st.data())
def test_together_and_alone_requests_get_what_recommend_gives(
    model: Recommender, drawn: st.DataObject
) -> None:
    requests = drawn.draw(st.lists(a_request(model), min_size=1, max_size=6))
    answerer = model.answerer()
    together = answerer.answer(requests)
    for request, answer in zip(requests, together, strict=True):
        (single,) = answerer.answer([request])
        assert isinstance(answer, Answer)
        assert isinstance(single, Answer)
        ids, scores, titles, sources = alone(model, request)
        assert single.ids == answer.ids == ids
        assert single.titles == titles
        np.testing.assert_array_equal(single.scores, scores)
        np.testing.assert_allclose(answer.scores, scores, rtol=1e-5, atol=1e-5)
        assert set(sources) <= {"popular" if answer.popular else "model"}
        items, _ = whole_history(model, request)
        assert answer.reading.length == len(items)
        assert list(answer.reading.unknown) == [item for item in items if item == 1234]
        wrong = [item for item in [*(request.allow or []), *(request.deny or [])] if item == 1234]
        assert list(answer.reading.unknown_filters) == wrong
        assert answer.reading.encoded == min(
            len(items) - len(answer.reading.unknown), model.encoder_.history_length
        )


@settings(max_examples=10)
@given(drawn=st.data())
def test_vectors_are_kept_by_what_they_are_made_of(model: Recommender, drawn: st.DataObject) -> None:
    """Equal keys go with equal vectors, and another k or filter asks for the same ones."""
    answerer = model.answerer()
    requests = drawn.draw(st.lists(a_request(model), min_size=1, max_size=6))
    others = [dataclasses.replace(own, k=5, allow=[1, 2, 3], exclude_seen=False) for own in requests]
    kept: dict[bytes, Any] = {}
    for batch in (requests, others):
        readings = [own for own in answerer.read(batch) if not isinstance(own, RecsysError)]
        for reading, states in zip(readings, answerer.encode(readings), strict=True):
            known = kept.setdefault(reading.state_key(), states)
            np.testing.assert_allclose(known, states, rtol=1e-5, atol=1e-5)
    changed = [
        dataclasses.replace(own, history=[*own.history, 7], times=[*(own.times or []), LATER + 10**8])
        for own in requests
    ]
    for before, after in zip(answerer.read(requests), answerer.read(changed), strict=True):
        assert not isinstance(before, RecsysError)
        assert not isinstance(after, RecsysError)
        assert before.state_key() != after.state_key()


def test_what_is_wrong_with_a_request_is_said_of_it_alone(data: Path) -> None:
    model = random_model("sasrec", data, clock="pool")
    user = model._names.users.decode(np.array([0]))[0]
    timed: dict[str, Any] = {"history": [1, 2], "times": [LATER, LATER + 60]}
    wrong: list[tuple[Request, type[RecsysError], str]] = [
        (Request(history=[True]), ArgumentError, "history holds True: ids are text or whole numbers"),
        (Request(history=[1.0]), ArgumentError, "history holds 1.0"),
        (Request(since=[(None, LATER)]), ArgumentError, "since holds None"),
        (Request(user=2.5), ArgumentError, "user holds 2.5"),
        (Request(user=user, allow=[False]), ArgumentError, "allow holds False"),
        (Request(user=user, deny="12"), ArgumentError, "deny must be a list of ids"),
        (Request(user=user, k=0), ArgumentError, "k = 0 must be at least 1"),
        (Request(user=user, interests=17), ArgumentError, "interests = 17 must be between 1 and 16"),
        (Request(user=user, exclude_seen=1), ArgumentError, "exclude_seen=1 must be True or False"),  # type: ignore[arg-type]
        (Request(user=user, category="z"), UnknownIdError, "unknown category 'z'"),
        (Request(user=user, time_zone="Nowhere"), ArgumentError, "Nowhere"),
        (Request(user=user, at="noon"), ArgumentError, "'noon' is no moment"),
        (Request(user=999, at="noon"), ArgumentError, "'noon' is no moment"),
        (Request(user=user, times=[LATER]), ArgumentError, "the history has 0 items and 1 times"),
        (Request(history=[1, 2]), ArgumentError, "reads the time of every event: pass times="),
        (Request(history=[1, 2], times=[LATER]), ArgumentError, "the history has 2 items and 1 times"),
        (Request(history=[1, 2], times=[LATER, 5]), ArgumentError, "go back to 5"),
        (
            Request(user=user, history=[1], times=[5]),
            ArgumentError,
            "go back to 5, and the user's last event",
        ),
        (Request(**timed, time_zone="column:x"), ArgumentError, "zone of this history is not known"),
    ]
    right = Request(user=user, **timed)
    answers = model.answerer().answer([request for own, _, _ in wrong for request in (right, own)])
    (first,) = model.answerer().answer([right])
    assert isinstance(first, Answer)
    for answer in answers[::2]:
        assert isinstance(answer, Answer)
        assert answer.ids == first.ids
    for error, (_, kind, message) in zip(answers[1::2], wrong, strict=True):
        assert type(error) is kind, message
        assert message in str(error)
        assert "\n" not in str(error)
    (plain,) = random_model("sasrec", data).answerer().answer([Request(user=user, at=LATER)])
    assert "at= has no part in this model's answers" in str(plain)


def test_late_events_take_their_place_and_early_moments_their_hour(data: Path) -> None:
    model = random_model("sasrec", data, clock="pool")
    store, row = model.store_, 3
    assert store.timestamps is not None
    span = slice(int(store.offsets[row]), int(store.offsets[row + 1]))
    times = store.timestamps[span]
    late = int(times[-2]) + 1
    user = model._names.users.decode(np.array([row]))[0]
    found, moved = model.answerer().read(
        [Request(user=user, since=[(7, late)]), Request(user=user, at=int(times[0]))]
    )
    assert not isinstance(found, RecsysError)
    assert not isinstance(moved, RecsysError)
    assert found.events.items.tolist() == np.insert(store.items[span], len(times) - 1, 7).tolist()
    assert found.events.times is not None
    assert found.events.times.tolist() == sorted([*times.tolist(), late])
    assert (found.later, moved.later) == (False, True)
    assert moved.at is not None
    assert moved.at >= times[-1]
    assert (moved.at - int(times[0])) % 86_400 == 0


def test_a_request_that_is_found_missing_its_vectors_is_refused(data: Path) -> None:
    answerer = random_model("sasrec", data).answerer()
    reading, nobody = answerer.read([Request(history=[1]), Request(history=[1234], k=3)])
    assert not isinstance(reading, RecsysError)
    assert not isinstance(nobody, RecsysError)
    nothing = np.zeros((0, 16), dtype=np.float32)
    with pytest.raises(ArgumentError, match="states of request 1 are missing"):
        answerer.search([nobody, reading], [nothing, nothing])
    (popular,) = answerer.search([nobody], [nothing])
    counts = np.sort(random_model("sasrec", data).store_.item_counts())[::-1]
    assert popular.popular
    np.testing.assert_allclose(popular.scores, counts[:3] / counts.sum(), rtol=1e-6)
    assert answerer.search([], []) == []
    assert answerer.answer([]) == []
