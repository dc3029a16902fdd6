"""The passes over histories against plain Python."""

import numpy as np
import pytest
import torch

from recsys.kernels.shared.histories import copy_histories, holds, items_ahead


def _log(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(items, starts, ends, wanted): overlapping and empty spans, repeats, some wanted items among them."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 50, 400).astype(np.int32)
    starts = rng.integers(0, 400, rows)
    ends = np.minimum(400, starts + rng.integers(0, 70, rows))
    return items, starts, ends, rng.integers(0, 50, rows)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("rows", [0, 1, 64, 200])
@pytest.mark.parametrize("threads", [1, 3])
def test_histories_are_copied_searched_and_counted(
    rows: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.kernels.shared import threads as threads_module

    monkeypatch.setattr(threads_module, "STEPS_PER_THREAD", 1)
    torch.set_num_threads(threads)
    for seed in range(5):
        items, starts, ends, wanted = _log(seed, rows)
        values = np.random.default_rng(seed).integers(0, 5, 50)
        ids, offsets = copy_histories(items, starts, ends)
        found = holds(items, starts, ends, wanted)
        above, level = items_ahead(items, starts, ends, values, wanted)
        assert len(offsets) == rows + 1
        assert ids.dtype == np.int64
        for row, item in enumerate(wanted.tolist()):
            history = items[starts[row] : ends[row]].tolist()
            others = values[list(set(history) - {item})]
            assert ids[offsets[row] : offsets[row + 1]].tolist() == history
            assert found[row] == (item in history)
            assert above[row] == np.count_nonzero(others > values[item])
            assert level[row] == np.count_nonzero(others == values[item])


def test_a_memory_map_and_strided_spans_are_read_alike(tmp_path: str) -> None:
    items, starts, ends, wanted = _log(7, 30)
    np.save(f"{tmp_path}/items.npy", items)
    mapped = np.load(f"{tmp_path}/items.npy", mmap_mode="r")
    spread = np.stack((starts, ends), 1)
    for a, b in zip(
        copy_histories(items, starts, ends), copy_histories(mapped, spread[:, 0], spread[:, 1]), strict=True
    ):
        assert np.array_equal(a, b)
    assert np.array_equal(
        holds(items, starts, ends, wanted), holds(mapped, spread[:, 0], spread[:, 1], wanted)
    )
