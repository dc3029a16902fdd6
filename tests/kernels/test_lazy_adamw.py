from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.lazy_adamw import update_rows

OPTIONS: dict[str, Any] = {"learning_rate": 0.01, "betas": (0.9, 0.98), "epsilon": 1e-8, "weight_decay": 0.1}


def _state(rows: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    weight, mean, square = torch.randn(3, rows, width, generator=generator, dtype=torch.float64).to(dtype)
    return weight.clone(), 0.1 * mean, square.abs()


@pytest.mark.parametrize("width", [3, 16, 50, 64])
def test_the_compiled_update_equals_the_reference(width: int) -> None:
    ids = torch.tensor([0, 3, 4, 999])
    gradient = torch.randn(4, width)
    ours, exact = _state(1000, width), _state(1000, width, torch.float64)
    update_rows(*ours, ids, gradient, step=7, backend="cpu", **OPTIONS)
    update_rows(*exact, ids, gradient.double(), step=7, backend="reference", **OPTIONS)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_other_rows_keep_every_bit(backend: str) -> None:
    before, after = _state(600, 20), _state(600, 20)
    ids = torch.arange(0, 600, 7)
    update_rows(*after, ids, torch.randn(len(ids), 20), step=3, backend=backend, **OPTIONS)
    others = torch.ones(600, dtype=torch.bool)
    others[ids] = False
    for a, b in zip(after, before, strict=True):
        assert torch.equal(a[others], b[others])
        assert not torch.isclose(a[ids], b[ids]).all(1).any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_with_every_row_touched_it_is_adamw(backend: str) -> None:
    weight = torch.randn(40, 24)
    theirs = torch.nn.Parameter(weight.clone())
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    mean, square = torch.zeros(40, 24), torch.zeros(40, 24)
    for step in range(1, 6):
        gradient = torch.randn(40, 24)
        update_rows(weight, mean, square, torch.arange(40), gradient, step=step, backend=backend, **OPTIONS)
        theirs.grad = gradient
        adamw.step()
    torch.testing.assert_close(weight, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_without_decay_it_is_sparse_adam() -> None:
    weight = torch.randn(40, 16)
    theirs = torch.nn.Parameter(weight.clone())
    adam = torch.optim.SparseAdam([theirs], lr=0.01, betas=(0.9, 0.98))
    mean, square = torch.zeros(40, 16), torch.zeros(40, 16)
    for step in range(1, 6):
        ids = torch.randperm(40)[:9].sort().values
        gradient = torch.randn(9, 16)
        options = {**OPTIONS, "weight_decay": 0.0}
        update_rows(weight, mean, square, ids, gradient, step=step, **options)
        theirs.grad = torch.sparse_coo_tensor(ids[None], gradient, (40, 16), check_invariants=True)
        adam.step()
    # SparseAdam adds epsilon before the bias correction: equal but for that.
    torch.testing.assert_close(weight, theirs.detach(), rtol=1e-4, atol=1e-5)


def test_threads_change_no_bit() -> None:
    gradient = torch.randn(5000, 64)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(_state(5000, 64))
        update_rows(*found[-1], torch.arange(5000), gradient, step=2, **OPTIONS)
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_rows_change_nothing() -> None:
    before, after = _state(5, 16), _state(5, 16)
    none = torch.zeros(0, dtype=torch.int64)
    update_rows(*after, none, torch.zeros(0, 16), step=1, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_wrong_arguments_are_named() -> None:
    weight, mean, square = _state(5, 16)
    ids = torch.tensor([1])
    with pytest.raises(ArgumentError, match="mean has shape"):
        update_rows(weight, mean[:4], square, ids, torch.zeros(1, 16), step=1, **OPTIONS)
    with pytest.raises(ArgumentError, match="weight has shape"):
        update_rows(weight.T, mean.T, square.T, ids, torch.zeros(1, 5), step=1, **OPTIONS)
    with pytest.raises(ArgumentError, match="want int64"):
        update_rows(weight, mean, square, ids, torch.zeros(2, 16), step=1, **OPTIONS)
