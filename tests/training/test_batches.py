from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.training.batches import plan_epoch


def _store(lengths: list[int], held_out: int = 2) -> Any:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    train = np.maximum(offsets[1:] - held_out, offsets[:-1])
    n = int(offsets[-1])
    return SimpleNamespace(
        items=np.arange(n, dtype=np.int32),
        timestamps=None,
        offsets=offsets,
        valid_start=train,
        event_inputs=None,
        request_inputs=None,
        event_weights=None,
        event_targets=None,
    )


def _training_events(store: Any) -> list[np.ndarray]:
    return [np.arange(s, e) for s, e in zip(store.offsets[:-1], store.valid_start, strict=True)]


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=20),
    st.integers(1, 12),
    st.integers(2, 40),
    st.integers(0, 5),
)
def test_every_event_but_the_first_is_a_target_exactly_once(
    lengths: list[int], max_length: int, budget: int, epoch: int
) -> None:
    store = _store(lengths)
    plan = plan_epoch(store, max_length=max_length, causal=True, batch_events=budget, seed=1, epoch=epoch)
    targets: list[int] = []
    for step in range(plan.n_steps):
        batch = plan.batch(store, step)
        assert batch.max_length <= max_length + 1
        assert batch.n_events <= budget or batch.batch_size == 1
        ends = np.cumsum(batch.lengths)
        for start, end in zip(ends - batch.lengths, ends, strict=True):
            window = batch.items[start:end].numpy()
            assert (np.diff(window) == 1).all()
            targets += window[1:].tolist()
    expected = np.concatenate([events[1:] for events in _training_events(store)])
    assert sorted(targets) == expected.tolist()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(2, 12), st.integers(0, 5))
def test_cloze_windows_hold_every_training_event_once(
    lengths: list[int], max_length: int, epoch: int
) -> None:
    store = _store(lengths)
    plan = plan_epoch(store, max_length=max_length, causal=False, batch_events=30, seed=1, epoch=epoch)
    seen = [plan.batch(store, step).items.numpy() for step in range(plan.n_steps)]
    expected = np.concatenate(_training_events(store))
    assert sorted(np.concatenate(seen or [expected[:0]]).tolist()) == expected.tolist()


def test_held_out_events_never_enter_a_batch() -> None:
    store = _store([10, 3, 50])
    plan = plan_epoch(store, max_length=8, causal=True, batch_events=16, seed=0, epoch=0)
    held_out = {8, 9, 11, 12, 61, 62}
    for step in range(plan.n_steps):
        assert not held_out & set(plan.batch(store, step).items.tolist())


def test_a_plan_depends_on_seed_and_epoch_alone() -> None:
    store = _store([30] * 20)

    def order(seed: int, epoch: int) -> list[int]:
        plan = plan_epoch(store, max_length=8, causal=True, batch_events=64, seed=seed, epoch=epoch)
        return plan.starts.tolist()  # type: ignore[no-any-return]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


@pytest.mark.parametrize("lengths", [[2, 1, 0], [3]])
def test_users_with_nothing_to_learn_give_no_steps(lengths: list[int]) -> None:
    plan = plan_epoch(_store(lengths), max_length=8, causal=True, batch_events=8, seed=0, epoch=0)
    assert plan.n_steps == 0
