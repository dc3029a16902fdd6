import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from recsys.answering.streams import state_bytes
from recsys.answering.user_states import UserStates
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.inference import encode_histories
from recsys.encoders.registry import encoder_config
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch

NAMES = ("sasrec", "bert4rec", "mamba")


class Log:
    """Histories that grow as events come in."""

    def __init__(self, users: int, items: int) -> None:
        rng = np.random.default_rng(0)
        self.events: dict[Hashable, list[int]] = {
            u: rng.integers(0, items, rng.integers(0, 20)).tolist() for u in range(users)
        }
        self.reads = 0

    def history(self, user: Hashable) -> Any:
        self.reads += 1
        return np.array(self.events[user], dtype=np.int64), None


def encoder_of(name: str) -> SequenceEncoder:
    options: dict[str, object] = {"d_model": 16, "n_layers": 1, "max_length": 8}
    return build_encoder(name, 30, encoder_config(name, options)).eval()


def whole(encoder: SequenceEncoder, events: list[int]) -> Any:
    items = np.array(events, dtype=np.int64)
    return encode_histories(encoder, items, None, np.array([0]), np.array([len(items)]))[0].numpy()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_gives_what_encoding_the_whole_history_would(name: str) -> None:
    encoder, log = encoder_of(name), Log(5, 30)
    states = UserStates(encoder, log.history)
    rng = np.random.default_rng(1)
    for _ in range(40):
        user, item = int(rng.integers(5)), int(rng.integers(30))
        got = states.append(user, item)
        log.events[user].append(item)
        # Mamba's state has read more than the window that a fresh encoding sees.
        if name != "mamba" or len(log.events[user]) <= 8:
            np.testing.assert_allclose(got, whole(encoder, log.events[user]), rtol=1e-3, atol=1e-4)
        again = states.state(user)
        assert again is not None
        np.testing.assert_array_equal(again, got)
    assert log.reads == states.misses <= 5
    assert states.hits > 60


def test_memory_is_bounded_and_a_dropped_user_is_read_anew() -> None:
    encoder, log = encoder_of("sasrec"), Log(20, 30)
    one = state_bytes(encoder.initial_state(1))
    states = UserStates(encoder, log.history, bytes_kept=4 * one)
    for user in range(20):
        states.append(user, 3)
        log.events[user].append(3)
        assert states.bytes <= 4 * one
        assert len(states) <= 3
    reads = log.reads
    got = states.append(0, 5)
    log.events[0].append(5)
    assert log.reads == reads + 1
    np.testing.assert_allclose(got, whole(encoder, log.events[0]), rtol=1e-3, atol=1e-4)
    nothing = UserStates(encoder, log.history, bytes_kept=0)
    nothing.append(1, 2)
    assert (len(nothing), nothing.bytes) == (0, 0)


def test_a_failed_step_costs_a_reading_and_no_wrong_state(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, log = encoder_of("sasrec"), Log(2, 30)
    states = UserStates(encoder, log.history)
    states.append(0, 3)
    log.events[0].append(3)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "step", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            states.append(0, 4)
    got = states.state(0)
    assert got is not None
    np.testing.assert_allclose(got, whole(encoder, log.events[0]), rtol=1e-3, atol=1e-4)
    states.forget(0)
    assert len(states) == 0


def test_a_user_without_events_has_no_state_and_items_are_checked() -> None:
    encoder, log = encoder_of("sasrec"), Log(2, 30)
    log.events["new"] = []
    states = UserStates(encoder, log.history)
    assert states.state("new") is None
    assert states.append("new", 4).shape == (16,)
    for item in (-1, 30):
        with pytest.raises(ArgumentError, match="lies outside"):
            states.append("new", item)
    with pytest.raises(ArgumentError, match="bytes_kept"):
        UserStates(encoder, log.history, bytes_kept=-1)


def test_threads_take_turns() -> None:
    encoder, log = encoder_of("sasrec"), Log(3, 30)
    log.events = {user: [] for user in range(3)}
    states = UserStates(encoder, log.history)

    def feed(user: int) -> None:
        for item in range(7):
            states.append(user, item)
            states.state((user + 1) % 3)

    # Every user's state is there before another thread asks for it.
    for user in range(3):
        states.append(user, 29)
        log.events[user].append(29)
    threads = [threading.Thread(target=feed, args=(user,)) for user in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = whole(encoder, [29, *range(7)])
    for user in range(3):
        got = states.state(user)
        assert got is not None
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    assert states.misses == 3


def test_states_of_stored_users(store: SequenceStore) -> None:
    encoder = encoder_of("sasrec")

    def history(user: Hashable) -> Any:
        assert isinstance(user, int)
        return store.history(user, "all").astype(np.int64), None

    states = UserStates(encoder, history)
    got = states.state(4)
    assert got is not None
    np.testing.assert_allclose(got, whole(encoder, store.history(4, "all").tolist()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_many_users_get_together_what_each_gets_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, log = encoder_of(name), Log(6, 30)
    together, alone = UserStates(encoder, log.history), UserStates(encoder, log.history)
    log.events["new"] = []
    users: list[Hashable] = [*range(6), "new", 2]
    passes: list[int] = []
    prefill = encoder.prefill

    def counted(batch: SequenceBatch, **known: Any) -> Any:
        passes.append(batch.batch_size)
        return prefill(batch, **known)

    monkeypatch.setattr(encoder, "prefill", counted)
    found = together.query_many(users)
    known = [user for user in range(6) if log.events[user]]
    assert passes == [len(known)]
    assert (together.hits, together.misses) == (0, 7)
    for user, query in zip(users, found, strict=True):
        single = alone.query(user)
        assert (query is None) == (single is None) == (not log.events[user])
        if query is not None and single is not None:
            assert query.items.tolist() == single.items.tolist() == log.events[user]
            np.testing.assert_allclose(query.states, single.states, rtol=1e-5, atol=1e-6)
    # Some step from what is kept, others begin anew; then all of them step.
    together.forget(0)
    for items in ([1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1]):
        states = together.append_many(users[:7], items)
        for user, item, state in zip(users, items, states, strict=False):
            np.testing.assert_allclose(alone.append(user, item), state, rtol=1e-5, atol=1e-6)
            log.events[user].append(item)
    assert together.bytes == alone.bytes
    with pytest.raises(ArgumentError, match="a user is named twice"):
        together.append_many([1, 1], [2, 3])
    with pytest.raises(ArgumentError, match="2 users, 1 items, 2 times: one for each"):
        together.append_many([1, 2], [2])
    with pytest.raises(ArgumentError, match="item 30 lies outside"):
        together.append_many([1, 2], [2, 30])
    log.events["odd"] = [1, 30]
    with pytest.raises(ArgumentError, match="item 30 lies outside"):
        together.query("odd")


@pytest.mark.parametrize("name", NAMES)
def test_many_users_are_read_at_hours_of_their_own(name: str) -> None:
    options: dict[str, object] = {"d_model": 16, "n_layers": 1, "max_length": 8, "clock": "pool"}
    encoder = build_encoder(name, 30, encoder_config(name, options)).eval()
    noon, hour = 1_700_000_000, 3_600

    def history(user: Hashable) -> Any:
        return np.array([int(str(user)), 5]), np.array([noon, noon + 60])

    states = UserStates(encoder, history, time_zone="+02:00")
    wanted = [states.query(user, at=noon + user * hour) for user in (1, 2)]
    wanted.append(states.query(3))
    found = states.query_many([1, 2, 3], at=[noon + hour, noon + 2 * hour, None])
    for query, single in zip(found, wanted, strict=True):
        assert query is not None
        assert single is not None
        np.testing.assert_allclose(query.states, single.states, rtol=1e-5, atol=1e-6)
    local = states.query_many([2], local_at=[noon + 4 * hour])[0]
    assert local is not None
    assert wanted[1] is not None
    np.testing.assert_allclose(local.states, wanted[1].states, rtol=1e-5, atol=1e-6)
    after = states.append_many([1, 2], [7, 8], [noon + 90, noon + 3 * hour])
    alone = UserStates(encoder, history, time_zone="+02:00")
    np.testing.assert_allclose(after[1], alone.append(2, 8, noon + 3 * hour), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[0], alone.append(1, 7, noon + 90), rtol=1e-5, atol=1e-6)
