"""Several threads of one model: answers are those of one thread, and catalogs change one change at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recsys
from recsys import Recommender
from recsys.answering.answers import AnswerArrays
from recsys.answering.each import Answer, Request
from recsys.errors import ArgumentError
from tests.answering.models import N_ITEMS, day_log, random_model

THREADS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("threads") / "data")
    log, items = day_log()
    recsys.prepare(log, folder, items=items, time_zone="-05:00")
    return folder


def arrays(model: Recommender, **options: Any) -> AnswerArrays:
    """Answers as arrays, by name."""
    return AnswerArrays(*model.recommend_arrays(**options))


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Results of calls that begin together, each in a thread of its own."""
    begin = threading.Barrier(len(calls))

    def called(call: Callable[[], Any]) -> Any:
        torch.set_num_threads(1)
        begin.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(called, calls))


@pytest.mark.parametrize("clock", ["off", "pool"])
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_threads_get_the_bits_that_one_gets(name: str, clock: str, data: Path) -> None:
    model = random_model(name, data, clock=clock)
    users = model._names.users.decode(np.arange(24)).to_list()
    asked = [
        {"users": [user], "k": 3 + place % 5, "exclude_seen": place % 3 > 0, "interests": 1 + place % 2}
        for place, user in enumerate(users)
    ]
    asked += [{"users": users[place : place + 5], "k": 4, "category": "a"} for place in range(0, 24, 6)]
    serial = [arrays(model, **own) for own in asked]
    answerer = model.answerer()
    requests = [Request(user=user, k=4, deny=[1]) for user in users]
    together = [answer.scores for answer in answerer.answer(requests) if isinstance(answer, Answer)]

    def own_order(thread: int) -> Callable[[], Any]:
        def call() -> Any:
            order = np.random.default_rng(thread).permutation(len(asked)).tolist()
            found = {place: arrays(model, **asked[place]) for place in order}
            scores = [own.scores for own in answerer.answer(requests) if isinstance(own, Answer)]
            return [found[place] for place in range(len(asked))], scores

        return call

    for found, scores in at_once([own_order(thread) for thread in range(THREADS)]):
        for own, wanted in zip(found, serial, strict=True):
            assert own.ids.tolist() == wanted.ids.tolist()
            np.testing.assert_array_equal(own.scores, wanted.scores)
        for array, same in zip(scores, together, strict=True):
            np.testing.assert_array_equal(array, same)


def test_catalogs_change_one_change_at_a_time(data: Path, tmp_path: Path) -> None:
    model = random_model("sasrec", data)
    model.save(tmp_path / "run")
    user = model._names.users.decode(np.array([0])).to_list()
    width, stop = model.index_.width, threading.Event()

    def changing(thread: int) -> Callable[[], None]:
        def call() -> None:
            rng = np.random.default_rng(thread)
            for number in range(12):
                name = 1000 * (thread + 1) + number
                if number % 3 == 2:
                    model.add_items([name], category=["a"])
                else:
                    model.add_items([name], vectors=rng.normal(size=(1, width)))
                if number % 4 == 3:
                    model.remove_items([name])
                if number == 6:
                    model.save_changes()

        return call

    def asking() -> None:
        while not stop.is_set():
            for options in ({"exclude_seen": False}, {"category": "a"}, {}):
                found = arrays(model, users=user, k=N_ITEMS + 50, **options)
                listed = [name for name in found.ids[0] if name is not None]
                assert len(set(listed)) == len(listed)
            (answer,) = model.answerer().answer([Request(user=user[0], k=200, exclude_seen=False)])
            assert isinstance(answer, Answer)
            assert len(set(answer.ids)) == len(answer.ids)

    readers = ThreadPoolExecutor(2)
    asked = [readers.submit(asking) for _ in range(2)]
    try:
        at_once([changing(thread) for thread in range(THREADS)])
    finally:
        stop.set()
        readers.shutdown()
    for own in asked:
        own.result()
    added = {1000 * (t + 1) + n for t in range(THREADS) for n in range(12) if n % 4 != 3}
    found = arrays(model, users=user, k=200, exclude_seen=False)
    names = {name for name in found.ids[0] if name is not None}
    assert names == added | set(range(N_ITEMS))
    # What is saved and opened again is the same catalog, under the same names.
    model.save_changes()
    opened = arrays(recsys.load(tmp_path / "run"), users=user, k=200, exclude_seen=False)
    assert opened.ids.tolist() == found.ids.tolist()
    np.testing.assert_array_equal(opened.scores, found.scores)
    grouped = arrays(model, users=user, k=200, exclude_seen=False, category="a")
    listed = {name for name in grouped.ids[0] if name is not None and name >= 1000}
    assert listed == {name for name in added if name % 1000 % 3 == 2}


def test_new_items_have_ids_of_the_logs_kind(data: Path) -> None:
    model = random_model("sasrec", data)
    vector = np.ones((1, model.index_.width))
    for wrong in ("x", 1.5, None):
        with pytest.raises(ArgumentError, match="is not a whole number, as the log's items are"):
            model.add_items([wrong], vectors=vector)
    # Nothing of a call that is refused is added.
    with pytest.raises(ArgumentError, match="item 'x' is not a whole number"):
        model.add_items([500, "x"], vectors=np.ones((2, model.index_.width)))
    assert model._names.answerable.encode([500]).tolist() == [-1]
    texts, _ = day_log()
    named = random_model("sasrec", texts.with_columns(item_id="i" + texts["item_id"].cast(str)))
    for wrong, message in ((True, "'True'"), (1.0, "'1.0'"), (np.float64(2), "'2.0'")):
        with pytest.raises(ArgumentError, match=f"is no text, as the log's items are: write {message}"):
            named.add_items([wrong], vectors=vector)
    named.add_items([7], vectors=vector)
    assert named._names.answerable.encode(["7"]).tolist() == [N_ITEMS]
