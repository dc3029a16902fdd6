from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.kernels.embedding import HashedTable
from recsys.kernels.sampled_loss import bce_loss, bpr_loss, gbce_loss, sampled_softmax_loss
from tests.kernels.tensors import assert_near

NEAR = {"relative": 3e-6, "floor": 1e-7}

LOSSES: dict[str, Any] = {
    "softmax": sampled_softmax_loss,
    "bce": bce_loss,
    "gbce": gbce_loss,
    "bpr": bpr_loss,
}
V = 11


def _inputs(n: int, k: int, d: int, device: torch.device, *, shared: bool) -> list[Tensor]:
    draws = torch.Generator().manual_seed(n + k)
    hidden = torch.randn(n, d, generator=draws, dtype=torch.float64)
    table = 0.5 * torch.randn(V, d, generator=draws, dtype=torch.float64)
    targets = torch.randint(0, V, (n,), generator=draws)
    negatives = torch.randint(0, V, (k,) if shared else (n, k), generator=draws)
    return [x.to(device) for x in (hidden, table, targets, negatives)]


def _run(
    name: str, inputs: list[Tensor], backend: str, hashes: int = 0, **options: Any
) -> tuple[Tensor, ...]:
    dtype = torch.float64 if backend == "reference" else torch.float32
    hidden, table = (x.to(dtype).detach().requires_grad_() for x in inputs[:2])
    items = HashedTable(table, V, hashes) if hashes else table
    upstream = options.pop("upstream", None)
    floats = {k: v.to(hidden) if isinstance(v, Tensor) else v for k, v in options.items()}
    loss = LOSSES[name](hidden, items, *inputs[2:], backend=backend, **floats)
    gradients = torch.autograd.grad(loss, (hidden, table), None if upstream is None else upstream.to(hidden))
    return loss.detach(), gradients[0], gradients[1].to_dense()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("n", "k", "d", "hashes"), [(1, 1, 8, 0), (3, 70, 33, 0), (2, 33, 130, 0), (4, 7, 20, 3)]
)
def test_losses_and_gradients_equal_the_definitions(
    name: str, shared: bool, n: int, k: int, d: int, hashes: int, device: torch.device
) -> None:
    inputs = _inputs(n, k, d, device, shared=shared)
    exact = _run(name, inputs, "reference", hashes)
    for sparse in (False, True):
        assert_near(_run(name, inputs, "triton", hashes, sparse=sparse), exact, **NEAR)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_every_option_equals_the_definition(
    name: str, shared: bool, reduction: str, device: torch.device
) -> None:
    inputs = _inputs(7, 12, 20, device, shared=shared)
    draws = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {
        "reduction": reduction,
        "temperature": 0.6,
        "weight": torch.rand(7, generator=draws),
        "upstream": torch.randn(7 if reduction == "none" else (), generator=draws),
    }
    if name == "softmax":
        options["label_smoothing"] = 0.2
        options["log_q"] = torch.randn(inputs[3].shape, generator=draws)
        options["target_log_q"] = torch.randn(7, generator=draws)
    assert_near(_run(name, inputs, "triton", **options), _run(name, inputs, "reference", **options), **NEAR)


def test_one_correction_serves_all_rows(device: torch.device) -> None:
    inputs = _inputs(5, 9, 16, device, shared=False)
    log_q = torch.randn(9, generator=torch.Generator().manual_seed(0))
    one, other = (_run("softmax", inputs, "triton", log_q=x) for x in (log_q, log_q.expand(5, 9)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert_near(one, _run("softmax", inputs, "reference", log_q=log_q), **NEAR)


def test_blocks_of_rows_join(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    from recsys.kernels.sampled_loss import triton

    monkeypatch.setattr(triton, "BLOCK_SCORES", 16)
    inputs = _inputs(70, 9, 16, device, shared=True)
    assert_near(_run("softmax", inputs, "triton"), _run("softmax", inputs, "reference"), **NEAR)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
def test_rows_that_hit_always_and_no_rows(name: str, shared: bool, device: torch.device) -> None:
    inputs = _inputs(5, 3, 8, device, shared=shared)
    inputs[2].fill_(4)
    inputs[3].fill_(4)
    options: dict[str, Any] = {"label_smoothing": 0.1} if name == "softmax" else {}
    assert_near(_run(name, inputs, "triton", **options), _run(name, inputs, "reference", **options), **NEAR)
    nothing = _run(name, _inputs(0, 3, 8, device, shared=shared), "triton")
    assert not any(bool(x.any()) for x in nothing)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
def test_extreme_scores_are_finite_and_nan_is_not_hidden(
    name: str, shared: bool, device: torch.device
) -> None:
    inputs = _inputs(6, 7, 20, device, shared=shared)
    large = [inputs[0] * 1e3, *inputs[1:]]
    for a, b in zip(_run(name, large, "triton"), _run(name, large, "reference"), strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    inputs[0][2, 0] = torch.nan
    rows = [x.float() for x in inputs[:2]]
    losses = LOSSES[name](*rows, *inputs[2:], reduction="none", backend="triton")
    assert torch.isnan(losses).nonzero().tolist() == [[2]]


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_has_the_same_bits_in_any_batch_and_run(name: str, device: torch.device) -> None:
    hidden, table, targets, negatives = _inputs(8, 40, 20, device, shared=False)
    options: dict[str, Any] = {"reduction": "none"}
    whole = _run(name, [hidden, table, targets, negatives], "triton", upstream=torch.ones(8), **options)
    again = _run(name, [hidden, table, targets, negatives], "triton", upstream=torch.ones(8), **options)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    for row in (0, 5, 7):
        part = [hidden[row : row + 1], table, targets[row : row + 1], negatives[row : row + 1]]
        single = _run(name, part, "triton", upstream=torch.ones(1), **options)
        assert torch.equal(single[0][0], whole[0][row])
        assert torch.equal(single[1][0], whole[1][row])


def test_narrow_types_are_computed_in_float32(device: torch.device) -> None:
    inputs = _inputs(6, 5, 20, device, shared=False)
    hidden, table = (x.half().requires_grad_() for x in inputs[:2])
    loss = sampled_softmax_loss(hidden, table, *inputs[2:], backend="triton")
    assert loss.dtype == torch.float16
    gradients = torch.autograd.grad(loss, (hidden, table))
    exact = _run("softmax", [hidden.detach(), table.detach(), *inputs[2:]], "reference")
    for a, b in zip((loss, *gradients), exact, strict=True):
        torch.testing.assert_close(a.detach().double(), b, rtol=2e-3, atol=2e-3)
