import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from recsys.answering.user_states import UserStates, state_bytes
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.inference import encode_histories
from recsys.encoders.registry import encoder_config
from recsys.errors import ArgumentError

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
