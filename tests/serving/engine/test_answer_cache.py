"""Answers that are kept: for the same request under the same position and model, and for nothing else."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from recsys.serving.engine.answer_cache import AnswerCache
from recsys.serving.engine.asking import Answered, Ask, HistoryRead, Item
from recsys.serving.engine.tails import Position

MODEL: Any = SimpleNamespace(number=1)
POSITION = Position(7, False)
ASK = Ask(user=1, k=2, category=["a"], request_id="first")


def _answered(count: int = 2, **other: Any) -> Answered:
    items = tuple(Item(n, 1 / n, n) for n in range(1, count + 1))
    return replace(Answered("m", "v", items, HistoryRead(3, 3), 7, batch=4, queue_ms=1.5), **other)


def _kept(answered: Answered, ask: Ask = ASK, position: Position | None = POSITION) -> AnswerCache:
    cache = AnswerCache(10_000)
    cache.put(MODEL, ask, position, answered)
    return cache


def test_the_same_request_gets_the_same_answer_which_nobody_computed() -> None:
    found = _kept(_answered()).get(MODEL, replace(ASK, request_id="second", category=("a",)), POSITION)
    assert found == _answered(batch=0, queue_ms=0.0, cached=True)


@pytest.mark.parametrize(
    "other",
    [
        {"user": "1"},
        {"k": 3},
        {"exclude_seen": False},
        {"at": 5},
        {"at": "5"},
        {"time_zone": "+01:00"},
        {"category": None},
        {"category": ["b"]},
        {"interests": 2},
        {"history": []},
        {"allow": [1]},
        {"deny": []},
    ],
)
def test_another_request_does_not(other: dict[str, Any]) -> None:
    assert _kept(_answered()).get(MODEL, replace(ASK, **other), POSITION) is None


@pytest.mark.parametrize("position", [Position(8, False), Position(7, True), Position(0, False), None])
def test_nor_does_one_after_an_event_or_an_erasure(position: Position | None) -> None:
    assert _kept(_answered()).get(MODEL, ASK, position) is None


def test_nor_another_model() -> None:
    other: Any = SimpleNamespace(number=2)
    assert _kept(_answered()).get(other, ASK, POSITION) is None


@pytest.mark.parametrize(
    ("answered", "ask", "position"),
    [
        (_answered(fallback="popular"), ASK, POSITION),
        (_answered(history=HistoryRead(3, 2, (9,))), ASK, POSITION),
        (_answered(), ASK, None),
        (_answered(), Ask(history=[1]), POSITION),
        (_answered(), replace(ASK, history=[1]), POSITION),
        (_answered(), replace(ASK, deny=[1]), POSITION),
    ],
)
def test_what_may_differ_or_has_to_be_counted_is_not_kept(
    answered: Answered, ask: Ask, position: Position | None
) -> None:
    cache = _kept(answered, ask, position)
    assert len(cache._kept) == 0
    assert cache.get(MODEL, ask, position) is None


def test_the_bound_counts_items() -> None:
    cache = AnswerCache(3 * (1000 + 2 * 300))
    for user in range(3):
        cache.put(MODEL, replace(ASK, user=user), POSITION, _answered())
    assert cache.get(MODEL, replace(ASK, user=0), POSITION) is not None
    cache.put(MODEL, replace(ASK, user=3), POSITION, _answered())
    assert [user for user in range(4) if cache.get(MODEL, replace(ASK, user=user), POSITION) is None] == [1]
    cache.put(MODEL, replace(ASK, user=4), POSITION, _answered(20))
    assert cache.get(MODEL, replace(ASK, user=4), POSITION) is None


def test_what_is_kept_is_counted() -> None:
    cache = _kept(_answered(2))
    # An answer and two items.
    assert cache.bytes == 1000 + 2 * 300
    cache.put(MODEL, ASK, POSITION, _answered(1))
    assert cache.bytes == 1000 + 300
