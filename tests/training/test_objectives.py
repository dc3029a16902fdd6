import numpy as np

from recsys.jagged import SequenceBatch
from recsys.training.objectives import cloze, next_item


def test_next_item_pairs_each_event_with_its_successor() -> None:
    task = next_item(SequenceBatch.from_sequences([[1, 2, 3], [4], [], [5, 6]]))
    assert task.rows is None
    assert task.batch.items.tolist() == [1, 2, 5]
    assert task.targets.tolist() == [2, 3, 6]
    assert task.batch.offsets.tolist() == [0, 2, 2, 2, 3]
    assert task.n_targets == 3


def test_next_item_keeps_times_with_their_events() -> None:
    task = next_item(SequenceBatch.from_lengths([1, 2, 3], [3], [10, 20, 30]))
    assert task.batch.timestamps is not None
    assert task.batch.timestamps.tolist() == [10, 20]


def _cloze(lengths: list[int], *, mask: float, last: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    items = np.arange(sum(lengths))
    task = cloze(
        SequenceBatch.from_lengths(items, lengths),
        1000,
        np.random.default_rng(seed),
        mask_probability=mask,
        last_mask_probability=last,
    )
    assert task.rows is not None
    rows = task.rows.numpy()
    assert task.targets.tolist() == items[rows].tolist()
    assert (task.batch.items.numpy()[rows] == 1000).all()
    untouched = np.setdiff1d(items, rows)
    assert (task.batch.items.numpy()[untouched] == untouched).all()
    return rows, np.repeat(np.arange(len(lengths)), lengths)[rows]


def test_cloze_hides_the_stated_share_and_at_least_one() -> None:
    lengths = [1, 2, 10, 25]
    _, sequence = _cloze(lengths, mask=0.2, last=0.0, seed=0)
    assert np.bincount(sequence, minlength=4).tolist() == [1, 1, 2, 5]


def test_cloze_hides_only_the_last_event_when_told() -> None:
    rows, _ = _cloze([3, 1, 4], mask=0.9, last=1.0, seed=0)
    assert rows.tolist() == [2, 3, 7]


def test_cloze_mixes_both_kinds_by_its_probability() -> None:
    rows, sequence = _cloze([10] * 2000, mask=0.5, last=0.3, seed=1)
    single = np.bincount(sequence) == 1
    # 2000 draws at 0.3: four standard deviations are 0.041.
    assert abs(single.mean() - 0.3) < 0.041
    assert np.isin(np.flatnonzero(single) * 10 + 9, rows).all()


def test_cloze_hides_every_place_equally_often() -> None:
    rows, _ = _cloze([5] * 4000, mask=0.4, last=0.0, seed=2)
    share = np.bincount(rows % 5) / 4000
    # Two of five are hidden: four standard deviations of 4000 draws at 0.4 are 0.031.
    assert np.abs(share - 0.4).max() < 0.031


def test_the_same_generator_state_hides_the_same_events() -> None:
    first, _ = _cloze([7, 9], mask=0.3, last=0.2, seed=3)
    again, _ = _cloze([7, 9], mask=0.3, last=0.2, seed=3)
    other, _ = _cloze([7, 9, 11, 30], mask=0.3, last=0.2, seed=4)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
