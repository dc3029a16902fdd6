import numpy as np
import pytest
import torch

from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch, flat_ranges


def test_a_batch_knows_its_positions_and_last_rows() -> None:
    batch = SequenceBatch.from_sequences([[5, 6, 7], [8], [9, 4]])
    assert batch.offsets.tolist() == [0, 3, 4, 6]
    assert batch.positions().tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.reversed_positions().tolist() == [2, 1, 0, 0, 1, 0]
    assert batch.last_rows().tolist() == [2, 3, 5]
    assert batch.next_item_rows().tolist() == [0, 1, 4]
    assert (batch.batch_size, batch.n_events, batch.max_length) == (3, 6, 3)


def test_empty_sequences_hold_their_place() -> None:
    batch = SequenceBatch.from_sequences([[], [3], []])
    assert batch.offsets.tolist() == [0, 0, 1, 1]
    assert batch.next_item_rows().tolist() == []
    with pytest.raises(ArgumentError, match="empty sequence"):
        batch.last_rows()


def test_an_empty_batch_is_a_batch() -> None:
    batch = SequenceBatch.from_sequences([])
    assert (batch.batch_size, batch.n_events, batch.max_length) == (0, 0, 0)
    assert batch.last_rows().tolist() == []


def test_append_puts_an_item_after_every_sequence() -> None:
    batch = SequenceBatch.from_sequences([[5, 6], [], [7]]).append(99)
    assert batch.items.tolist() == [5, 6, 99, 99, 7, 99]
    assert batch.offsets.tolist() == [0, 3, 4, 6]
    assert batch.lengths.tolist() == [3, 1, 2]


def test_append_gives_the_last_time_or_the_one_that_is_told() -> None:
    batch = SequenceBatch.from_sequences([[5, 6], [], [7]], [[10, 20], [], [30]])
    repeated, told = batch.append(99), batch.append(99, torch.tensor([1, 2, 3]))
    assert repeated.timestamps is not None
    assert told.timestamps is not None
    assert repeated.timestamps.tolist() == [10, 20, 20, 0, 30, 30]
    assert told.timestamps.tolist() == [10, 20, 1, 2, 30, 3]
    assert SequenceBatch.from_sequences([[5]]).append(99).timestamps is None


def test_times_are_packed_beside_the_items() -> None:
    batch = SequenceBatch.from_sequences([[5, 6], [], [7]], [[10, 20], [], [30]])
    assert batch.timestamps is not None
    assert batch.timestamps.tolist() == [10, 20, 30]
    with pytest.raises(ArgumentError, match="1 timestamps for 2 items"):
        SequenceBatch.from_sequences([[5, 6]], [[1]])


def test_lengths_must_account_for_all_items() -> None:
    with pytest.raises(ArgumentError, match="lengths sum to 4 but there are 3 items"):
        SequenceBatch.from_lengths([1, 2, 3], [2, 2])
    with pytest.raises(ArgumentError, match="2 timestamps for 3 items"):
        SequenceBatch.from_lengths([1, 2, 3], [3], [1, 2])


def test_a_batch_does_not_share_memory_with_its_source() -> None:
    source = np.array([1, 2, 3])
    batch = SequenceBatch.from_lengths(source, [3])
    source[0] = 7
    assert batch.items.tolist() == [1, 2, 3]
    assert batch.items.dtype == torch.int64
    assert batch.offsets.dtype == torch.int32


def test_flat_ranges_equal_concatenated_aranges() -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 100, 50)
    ends = starts + rng.integers(0, 5, 50)
    expected = np.concatenate([np.arange(s, e) for s, e in zip(starts, ends, strict=True)])
    assert flat_ranges(starts, ends).tolist() == expected.tolist()


def test_work_lists_are_made_once_and_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = SequenceBatch.from_sequences([[5, 6, 7], [], [8]])
    assert SequenceBatch.from_sequences([[5]]).scan_schedule is None
    assert SequenceBatch.from_sequences([[5]]).places is None
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    schedule = batch.scan_schedule
    assert schedule is not None
    assert (schedule.sequences, schedule.events) == (3, 4)
    assert batch.scan_schedule is schedule
    assert batch.places is not None
    assert (batch.places.dtype, batch.places.tolist()) == (torch.int32, [0, 1, 2, 0])
    assert batch.places is batch.places
    longer = batch.append(9).scan_schedule
    assert longer is not None
    assert longer.events == 7
