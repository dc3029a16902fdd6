"""Whatever came before it, an answer is the one of `recommend` for log, events and what was given."""

import asyncio
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from recsys import Recommender
from recsys.events.by_place import open_events
from recsys.events.store import Event, EventStore
from recsys.serving.engine.answer_cache import AnswerCache
from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.engine.taking import Taking
from tests.serving.engine.runs import engine_of, saved_run

USERS = (0, 1, 2, 777, 778)
"""Three of the log, and two whom it does not know."""
ITEMS = st.integers(0, 22)
"""Twenty of the log, and some that nobody knows."""
N_ITEMS = 20

asks = st.fixed_dictionaries(
    {
        "user": st.none() | st.sampled_from(USERS),
        "history": st.none() | st.lists(ITEMS, max_size=20),
        "k": st.integers(1, 25),
        "exclude_seen": st.booleans(),
        "allow": st.none() | st.lists(st.integers(0, 19), min_size=1, max_size=12),
        "deny": st.none() | st.lists(ITEMS, max_size=5),
        "category": st.none() | st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
        "interests": st.sampled_from((1, 1, 1, 3)),
        "at": st.none() | st.integers(1_500_000_000, 2_500_000_000),
    }
)


class Interleaved(RuleBasedStateMachine):
    """Events, erasures and questions in any order."""

    engine: ClassVar[ServingEngine]
    model: ClassVar[Recommender]
    new_events: ClassVar[Callable[[], Any]]
    logs: ClassVar[dict[int, list[tuple[int, int]]]]

    def __init__(self) -> None:
        super().__init__()
        # The cache lives on from example to example, as it does from request to request.
        self.events = type(self).new_events()
        self.engine._events = self.engine._batcher._compute._events = self.events  # type: ignore[attr-defined]
        self.engine._taking = Taking(self.events, self.engine._read)
        # An answer that was kept is of the store that its position is of.
        self.engine._answers = AnswerCache(2**20)
        self.kept: dict[int, list[tuple[int, int]]] = {user: [] for user in USERS}
        self.erased: set[int] = set()
        self.named = 0
        self.times = self.model.encoder_.clock is not None

    @rule(
        user=st.sampled_from(USERS),
        items=st.lists(ITEMS, min_size=1, max_size=4),
        time=st.integers(1_200_000_000, 1_900_000_000),
    )
    def append(self, user: int, items: list[int], time: int) -> None:
        self.events.append([Event(user, item, time + place % 2) for place, item in enumerate(items)])
        self.kept[user] += [(time + place % 2, item) for place, item in enumerate(items)]

    @rule(user=st.sampled_from(USERS), item=ITEMS)
    def append_twice(self, user: int, item: int) -> None:
        self.named += 1
        name = f"event {self.named}"
        event = Event(user, item, 1_950_000_000, id=name)
        assert [self.events.append([event]).accepted for _ in range(2)] == [1, 0]
        self.kept[user].append((1_950_000_000, item))

    @precondition(lambda self: len(self.erased) < 2)
    @rule(user=st.sampled_from(USERS))
    def erase(self, user: int) -> None:
        assert self.events.erase(user) == len(self.kept[user])
        self.kept[user] = []
        self.erased.add(user)

    @rule(asked=asks)
    def ask(self, asked: dict[str, Any]) -> None:
        (found,) = self._found([asked])
        scores = self._check(asked, found)
        wanted = [score for score in scores if score is not None]
        # Alone it is the same bits, unless its vector was kept from a batch.
        assert found.cached or [item.score for item in found.items] == wanted
        again = self._found([asked])[0]
        assert again.items == found.items
        assert again.cached or found.fallback

    @rule(several=st.lists(asks, min_size=2, max_size=12))
    def ask_together(self, several: list[dict[str, Any]]) -> None:
        for asked, found in zip(several, self._found(several), strict=True):
            self._check(asked, found)

    def _found(self, several: list[dict[str, Any]]) -> list[Answered]:
        answers = asyncio.run(self.engine.recommend_many([self._as_ask(asked) for asked in several]))
        for answer in answers:
            assert isinstance(answer, Answered), answer
        return [answer for answer in answers if isinstance(answer, Answered)]

    def _as_ask(self, asked: dict[str, Any]) -> Ask:
        given = dict(asked)
        if not self.times:
            given["at"] = None
        if given["history"] is None and given["user"] is None:
            given["history"] = []
        times = self._given_times(given) if self.times and given["history"] is not None else None
        return Ask(**given, times=times)

    @staticmethod
    def _given_times(asked: dict[str, Any]) -> list[int]:
        return [2_000_000_000 + 3000 * place for place in range(len(asked["history"]))]

    def _check(self, asked: dict[str, Any], found: Answered) -> list[float | None]:
        """Compare with `recommend`; its scores."""
        events: list[tuple[int, int]] = []
        user = asked["user"]
        if user is not None:
            events += [] if user in self.erased else self.logs.get(user, [])
            events = sorted(events + sorted(self.kept[user], key=lambda e: e[0]), key=lambda e: e[0])
        given = asked["history"] or []
        events += list(zip(self._given_times({"history": given}), given, strict=True))
        options = {name: asked[name] for name in asked if name not in ("user", "history", "k", "at")}
        if self.times:
            options |= {"at": asked["at"], "times": [[time for time, _ in events]]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            everything = self.model.recommend(
                histories=[[item for _, item in events]], k=N_ITEMS, on_unknown="ignore", **options
            )
        score = dict(zip(everything["item_id"].to_list(), everything["score"].to_list(), strict=True))
        wanted = list(score)[: asked["k"]]
        ids = [item.id for item in found.items]
        assert len(ids) == len(wanted)
        assert len(set(ids)) == len(ids)
        # Two items may change places where their scores differ by less than a product's rounding.
        for item, other in zip(found.items, wanted, strict=True):
            np.testing.assert_allclose(item.score, score[item.id], rtol=1e-5, atol=1e-5)
            assert item.id == other or abs(score[item.id] - score[other]) < 2e-5
        assert found.history.events == len(events)
        assert sorted(found.history.unknown) == sorted(item for _, item in events if item >= N_ITEMS)
        assert (found.fallback == "popular") == all(item >= N_ITEMS for _, item in events)
        return [score[item] for item in wanted]


@pytest.fixture(scope="module", params=["sasrec", "mamba", "bert4rec", "clock"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServingEngine, Recommender]]:
    folder = Path(tmp_path_factory.mktemp("parity")) / "run"
    name, options = (request.param, {}) if request.param != "clock" else ("sasrec", {"clock": "pool"})
    run = saved_run(folder, name, **options)
    engine = engine_of(run)
    yield engine, Recommender.load(run)
    engine.end()


def _machine(
    engine: ServingEngine, model: Recommender, new_events: Callable[[], Any]
) -> type[RuleBasedStateMachine]:
    store = model.store_
    assert store.timestamps is not None
    logs = {}
    for user in USERS[:3]:
        span = slice(int(store.offsets[user]), int(store.offsets[user + 1]))
        logs[user] = list(zip(store.timestamps[span].tolist(), store.items[span].tolist(), strict=True))
    parts = {"engine": engine, "model": model, "logs": logs, "new_events": staticmethod(new_events)}
    return type("InterleavedHere", (Interleaved,), parts)


@pytest.fixture
def new_events(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Opens empty stores of events in files; the one before is closed."""
    stores: list[EventStore] = []

    def new() -> EventStore:
        if stores:
            stores[-1].close()
        stores.append(open_events(str(tmp_path / f"{len(stores)}.db"), "process"))
        return stores[-1]

    yield new
    if stores:
        stores[-1].close()


def test_any_interleaving_of_events_erasures_and_questions(
    served: tuple[ServingEngine, Recommender], new_events: Callable[[], Any]
) -> None:
    run_state_machine_as_test(
        _machine(*served, new_events),
        settings=settings(
            max_examples=12,
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=False,
        ),
    )
