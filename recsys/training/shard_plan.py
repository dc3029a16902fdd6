"""Training batches of a store of shards: a process plans and opens no more than the shards of its batches.

The shards are dealt to G streams, in an order drawn for each (seed, epoch); G is ``training.accumulate``.
Stream j gives the j-th batch of every group while all streams have one, and what the longer streams have
left follows, stream after stream. So step s is the same batch whatever the number of processes, and a process
that takes every W-th step reads every W-th stream, but for the end of an epoch.
"""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore
from recsys.jagged import SequenceBatch
from recsys.training.batches import EpochPlan, plan_epoch, plan_windows
from recsys.training.processes import ALONE, Processes

__all__ = ["Plan", "ShardedPlan", "deal_shards", "plan_of"]

_OF_SHARDS = 1
"""Last word of the seeds of shards' windows, so that they share none with those of batches."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How the windows of one epoch are cut.

    Attributes:
        max_length: most events that the encoder takes at once.
        causal: whether a window carries one more event, its first being input only.
        batch_events: budget of events per step.
        seed: of the run.
        epoch: counted from 0.
    """

    max_length: int
    causal: bool
    batch_events: int
    seed: int
    epoch: int

    def of_shard(self, store: ShardedStore, shard: int) -> EpochPlan:
        """The batches of one shard, which depend on (seed, epoch, shard) alone."""
        rng = np.random.default_rng([self.seed, self.epoch, shard, _OF_SHARDS])
        return plan_windows(
            store.shard(shard),
            rng,
            max_length=self.max_length,
            causal=self.causal,
            batch_events=self.batch_events,
        )


class ShardedPlan:
    """All batches of one epoch of a store of shards.

    Args:
        store: whose training events are planned.
        windows: how they are cut.
        streams: G.
        processes: that train together; each counts the batches of its own streams and learns the others'.
    """

    def __init__(
        self, store: ShardedStore, windows: Windows, streams: int, processes: Processes = ALONE
    ) -> None:
        self._store = store
        self._windows = windows
        self._streams = deal_shards(
            [shard.train_events for shard in store.shards], streams, windows.seed, windows.epoch
        )
        # One shard of each stream is under way, and one more at the end of an epoch.
        self._kept = len(self._streams) + 1
        self._planned: OrderedDict[int, EpochPlan] = OrderedDict()
        facts = self._count(processes)
        self.n_events, self.n_windows = (sum(one[place] for one in facts.values()) for place in (1, 2))
        self.longest_window = max(one[3] for one in facts.values())
        self._ends = [np.cumsum([facts[shard][0] for shard in stream]) for stream in self._streams]
        lengths = [int(ends[-1]) if len(ends) else 0 for ends in self._ends]
        self._together = min(lengths)
        self._tail = np.cumsum([0, *(length - self._together for length in lengths)])
        self.n_steps = sum(lengths)

    def batch(self, store: SequenceStore, step: int) -> SequenceBatch:
        """The packed windows of one step."""
        shard, own = self._place(step)
        return self._plan(shard).batch(self._store.shard(shard), own)

    def step_events(self, step: int) -> int:
        """Events in the windows of one step."""
        shard, own = self._place(step)
        return self._plan(shard).step_events(own)

    def shard_of(self, step: int) -> int:
        """The shard that a step's windows lie in."""
        return self._place(step)[0]

    def _place(self, step: int) -> tuple[int, int]:
        """Shard of a step, and its step among those of the shard."""
        streams = len(self._streams)
        if step < self._together * streams:
            stream, place = step % streams, step // streams
        else:
            left = step - self._together * streams
            stream = int(np.searchsorted(self._tail, left, side="right")) - 1
            place = self._together + left - int(self._tail[stream])
        ends = self._ends[stream]
        which = int(np.searchsorted(ends, place, side="right"))
        return self._streams[stream][which], place - (int(ends[which - 1]) if which else 0)

    def _plan(self, shard: int) -> EpochPlan:
        if shard not in self._planned:
            self._planned[shard] = self._windows.of_shard(self._store, shard)
            if len(self._planned) > self._kept:
                self._planned.popitem(last=False)
        self._planned.move_to_end(shard)
        return self._planned[shard]

    def _count(self, processes: Processes) -> dict[int, list[int]]:
        """Batches, events, windows and longest window of every shard."""
        own = {}
        for shard in itertools.chain.from_iterable(self._streams[processes.rank :: processes.size]):
            plan = self._windows.of_shard(self._store, shard)
            own[shard] = [plan.n_steps, plan.n_events, plan.n_windows, plan.longest_window]
        told = processes.values([[shard, *facts] for shard, facts in own.items()])
        return {shard: facts for one in told for shard, *facts in one}


Plan = EpochPlan | ShardedPlan


def plan_of(
    store: SequenceStore,
    *,
    max_length: int,
    causal: bool,
    batch_events: int,
    seed: int,
    epoch: int,
    accumulate: int = 1,
    processes: Processes = ALONE,
) -> Plan:
    """All batches of one epoch; see `plan_epoch`.

    Args:
        store: prepared data, in one piece or in shards.
        max_length: most events that the encoder takes at once.
        causal: whether a window carries one more event, its first being input only.
        batch_events: budget of events per step.
        seed: of the run.
        epoch: counted from 0.
        accumulate: batches of an optimization step, as many as shards are read side by side.
        processes: that train together; all call this together.
    """
    if isinstance(store, ShardedStore):
        windows = Windows(max_length, causal, batch_events, seed, epoch)
        return ShardedPlan(store, windows, accumulate, processes)
    return plan_epoch(
        store, max_length=max_length, causal=causal, batch_events=batch_events, seed=seed, epoch=epoch
    )


def deal_shards(events: Sequence[int], streams: int, seed: int, epoch: int) -> list[list[int]]:
    """Deal shards to streams in random order, each to the stream that has fewest events so far.

    Args:
        events: training events of each shard.
        streams: how many.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        For each stream its shards, in the order in which they are read.
    """
    order: npt.NDArray[np.int64] = np.random.default_rng([seed, epoch]).permutation(len(events))
    dealt: list[list[int]] = [[] for _ in range(streams)]
    totals = [0] * streams
    for shard in order.tolist():
        least = min(range(streams), key=totals.__getitem__)
        dealt[least].append(shard)
        totals[least] += events[shard]
    return dealt
