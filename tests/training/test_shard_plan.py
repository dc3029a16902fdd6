"""Batches of a store of shards: every event once, whatever the number of processes that share them."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.training.processes import Processes
from recsys.training.shard_plan import ShardedPlan, deal_shards, plan_of

SETTINGS: dict[str, Any] = {"max_length": 8, "causal": True, "batch_events": 40, "seed": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ShardedStore:
    """Shards of a log in which no two events have the same item, so that a batch tells its events."""
    rng = np.random.default_rng(4)
    n = 900
    log = pl.DataFrame(
        {
            "user_id": np.minimum(rng.geometric(0.02, n), 90),
            "item_id": np.arange(n),
            "timestamp": 1_000_000_000 + rng.permutation(n),
        }
    )
    made = prepare(log, tmp_path_factory.mktemp("shards") / "out", shards=7)
    assert isinstance(made, ShardedStore)
    return made


class OneOfSeveral(Processes):
    """A process whose exchanges were written down beforehand."""

    def __init__(self, rank: int, size: int, said: list[Any]) -> None:
        self.rank, self.size, self.said = rank, size, said

    def values(self, value: Any) -> list[Any]:
        assert value == self.said[self.rank]
        return self.said


class Listening(Processes):
    """A process of several that writes down what it would say."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.said: Any = None

    def values(self, value: Any) -> list[Any]:
        self.said = value
        raise InterruptedError


def planned(store: ShardedStore, streams: int, rank: int = 0, size: int = 1, epoch: int = 0) -> ShardedPlan:
    said = []
    for other in range(size):
        listening = Listening(other, size)
        with pytest.raises(InterruptedError):
            plan_of(store, **SETTINGS, epoch=epoch, accumulate=streams, processes=listening)
        said.append(listening.said)
    plan = plan_of(
        store, **SETTINGS, epoch=epoch, accumulate=streams, processes=OneOfSeveral(rank, size, said)
    )
    assert isinstance(plan, ShardedPlan)
    return plan


def batches(store: ShardedStore, plan: ShardedPlan) -> list[tuple[list[int], list[int]]]:
    made = [plan.batch(store, step) for step in range(plan.n_steps)]
    return [(batch.items.tolist(), batch.lengths.tolist()) for batch in made]


@pytest.mark.parametrize("streams", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("causal", [True, False])
def test_every_training_event_is_learned_once(store: ShardedStore, streams: int, causal: bool) -> None:
    settings = {**SETTINGS, "causal": causal}
    plan = plan_of(store, **settings, epoch=2, accumulate=streams)
    found: list[int] = []
    for items, lengths in batches(store, plan):  # type: ignore[arg-type]
        assert sum(lengths) <= SETTINGS["batch_events"]
        ends = np.cumsum(lengths)
        for start, end in zip(ends - lengths, ends, strict=True):
            found += items[start + causal : end]
    wanted = [
        int(item) for user in range(store.n_users) for item in store.train_sequence(user)[int(causal) :]
    ]
    assert sorted(found) == sorted(wanted)


def test_the_facts_of_a_plan_are_those_of_its_batches(store: ShardedStore) -> None:
    plan = planned(store, streams=2)
    made = batches(store, plan)
    assert plan.n_events == sum(len(items) for items, _ in made)
    assert plan.n_windows == sum(len(lengths) for _, lengths in made)
    assert plan.longest_window == max(max(lengths) for _, lengths in made)
    assert [plan.step_events(step) for step in range(plan.n_steps)] == [len(items) for items, _ in made]


@pytest.mark.parametrize(("streams", "size"), [(2, 2), (4, 2), (6, 3), (4, 4)])
def test_batches_do_not_know_the_number_of_processes(store: ShardedStore, streams: int, size: int) -> None:
    alone = batches(store, planned(store, streams))
    for rank in range(size):
        assert batches(store, planned(store, streams, rank, size)) == alone


def test_a_process_opens_the_shards_of_its_streams_alone(
    store: ShardedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, size = 2, 2
    alone = planned(store, streams)
    dealt = deal_shards([shard.train_events for shard in store.shards], streams, SETTINGS["seed"], 0)
    together = max(step for step in range(alone.n_steps) if alone.shard_of(step) in dealt[step % 2])
    assert together > alone.n_steps * 0.7
    shard = ShardedStore.shard
    for rank in range(size):
        plan = planned(store, streams, rank, size)
        opened: set[int] = set()

        def counted(self: ShardedStore, number: int, seen: set[int] = opened) -> SequenceStore:
            seen.add(number)
            return shard(self, number)

        monkeypatch.setattr(ShardedStore, "shard", counted)
        for step in range(rank, alone.n_steps, size):
            if step <= together - streams:
                plan.batch(store, step)
        monkeypatch.undo()
        assert opened <= set(dealt[rank])
        assert opened


def test_epochs_and_seeds_give_other_orders_and_any_step_stands_by_itself(store: ShardedStore) -> None:
    first, second = (planned(store, 3, epoch=epoch) for epoch in (0, 1))
    assert batches(store, first) != batches(store, second)
    assert first.shard_of(0) != second.shard_of(0) or first.shard_of(1) != second.shard_of(1)
    wanted = batches(store, first)
    fresh = planned(store, 3)
    for step in reversed(range(fresh.n_steps)):  # as after a resumption
        batch = fresh.batch(store, step)
        assert (batch.items.tolist(), batch.lengths.tolist()) == wanted[step]


def test_shards_are_dealt_evenly() -> None:
    rng = np.random.default_rng(0)
    events = rng.integers(900, 1_100, 64).tolist()
    for streams in (1, 4, 8):
        dealt = deal_shards(events, streams, seed=1, epoch=5)
        assert sorted(shard for stream in dealt for shard in stream) == list(range(64))
        totals = [sum(events[shard] for shard in stream) for stream in dealt]
        assert max(totals) - min(totals) <= 1_100
    assert deal_shards(events, 4, 1, 5) != deal_shards(events, 4, 1, 6)
    assert deal_shards([5, 5], 3, 0, 0)[2] == []
