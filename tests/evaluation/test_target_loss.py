"""The validation loss beside the softmax written out."""

import numpy as np
import pytest
import torch

from recsys.encoders.window_bias import WindowBias
from recsys.evaluation.target_loss import TargetLoss, target_losses
from recsys.evaluation.targets import select_targets
from tests.conftest import StoreMaker


def _inputs(rows: int = 7, items: int = 30) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(rows, 8, generator=generator)
    weight = torch.randn(items, 8, generator=generator)
    return states, weight, np.arange(rows) * 4 % items


def test_the_loss_is_the_softmaxs() -> None:
    states, weight, target = _inputs()
    wanted = torch.nn.functional.cross_entropy(states @ weight.T, torch.from_numpy(target), reduction="none")
    torch.testing.assert_close(target_losses(states, weight, target).float(), wanted)


@pytest.mark.parametrize("bias", [-16.0, -1.0, 0.0, 2.5])
def test_the_windows_bias_counts_in_the_sum_and_at_the_target(bias: float) -> None:
    states, weight, target = _inputs()
    # Row 0 has its target in the window, row 1 an empty window, the others items beside it.
    rows = [[0, 5, 9], [], *([(4 * r + 1) % 30, (4 * r + 2) % 30] for r in range(2, 7))]
    ids = np.array([i for row in rows for i in row], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, rows)])
    added = np.full(len(ids), bias, np.float32) * np.linspace(0.5, 1, len(ids), dtype=np.float32)
    window = WindowBias(ids, offsets, added)
    scores = (states @ weight.T).double()
    scores[torch.from_numpy(window.rows()), torch.from_numpy(ids)] += torch.from_numpy(added).double()
    wanted = torch.nn.functional.cross_entropy(scores, torch.from_numpy(target), reduction="none")
    torch.testing.assert_close(target_losses(states, weight, target, window), wanted, rtol=1e-5, atol=1e-5)


def test_the_mean_is_over_all_targets_whatever_the_batches(make_store: StoreMaker) -> None:
    store = make_store([([1, 2], [u % 5], []) for u in range(6)], 5)
    targets = select_targets(store, "valid", "next")
    states, weight, _ = _inputs(6, 5)
    loss = TargetLoss(lambda rows, _: states[rows], weight, None)
    for rows in (np.array([0, 1, 2, 3]), np.array([4, 5])):
        assert loss(rows, targets) is not None
    wanted = torch.nn.functional.cross_entropy(states @ weight.T, torch.from_numpy(targets.target))
    assert loss.mean(targets.n_rows) == pytest.approx(float(wanted))
