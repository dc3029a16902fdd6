"""The matrix tiles' products, and cross-entropy by them; elsewhere bfloat16 is widened, which others test."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.kernels.shared.vector import Array, Number, compiled, load, tiles
from recsys.kernels.shared.vector.lanes import store
from recsys.kernels.shared.vector.tiles import BLOCK, tiles_available

pytestmark = pytest.mark.skipif(not tiles_available(), reason="this processor has no matrix tiles")


def _bits(x: Tensor) -> NDArray[np.uint16]:
    return x.contiguous().view(torch.int16).view(-1).numpy().view(np.uint16)


@compiled
def _multiply(left: Array, right: Array, sums: Array, depth: Number, again: Number) -> None:
    before = tiles.begin_tiles()
    tiles.clear_sums()
    for _ in range(again):
        for d in range(0, depth, BLOCK):
            tiles.add_block_product(left, d, depth, right, d * BLOCK, 2 * BLOCK)
        tiles.store_sums(sums, 0, BLOCK)
        tiles.load_sums(sums, 0, BLOCK)
    tiles.end_tiles(before)


@pytest.mark.parametrize("depth", [32, 96])
def test_blocks_multiply_and_add_up(depth: int) -> None:
    generator = torch.Generator().manual_seed(depth)
    left = torch.randn(BLOCK, depth, generator=generator).bfloat16()
    right = torch.randn(depth, BLOCK, generator=generator).bfloat16()
    sums = np.full(BLOCK * BLOCK, np.nan, dtype=np.float32)
    pairs = right.view(depth // 2, 2, BLOCK).transpose(1, 2)
    _multiply(_bits(left), _bits(pairs), sums, depth, 2)
    torch.testing.assert_close(torch.from_numpy(sums).view(BLOCK, BLOCK), 2 * (left.float() @ right.float()))


@compiled
def _narrow(values: Array, powers: Array, narrow: Array) -> None:
    for place in range(0, len(values), 16):
        store(powers, place, tiles.narrow_exp2(load(values, place)))
        tiles.store_narrow(narrow, place, load(values, place))


def test_powers_and_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat(
        [
            (torch.randn(992, generator=generator) * 60).clamp(max=127),
            torch.tensor([0.0, -0.0, 126.9, -126.0]),
        ]
    )
    values = torch.cat([values, torch.tensor([1.00390625, -1.01171875, -1e30, 3e-39] + [torch.nan] * 8)])
    powers, narrow = torch.full_like(values, torch.nan), torch.zeros(len(values), dtype=torch.int16)
    _narrow(values.numpy(), powers.numpy(), narrow.numpy().view(np.uint16))
    rounded = values.bfloat16()
    rounded[-9] = 0.0  # the instruction takes denormals for zero
    torch.testing.assert_close(narrow.view(torch.bfloat16), rounded, rtol=0, atol=0, equal_nan=True)
    exact = torch.exp2(values.double().clamp(min=-126.0))
    torch.testing.assert_close(powers.double(), exact, rtol=3e-6, atol=0, equal_nan=True)


def _case(n: int, v: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + v + d)
    hidden = torch.randn(n, d, generator=generator).bfloat16()
    # Rising scores make the running maximum move from span to span.
    items = (torch.randn(v, d, generator=generator) * torch.linspace(0.2, 2, v)[:, None]).bfloat16()
    bias = torch.randn(v, generator=generator).bfloat16()
    return [hidden, items, bias, torch.randint(0, v, (n,), generator=generator)]


@pytest.mark.parametrize(("n", "v", "d"), [(1, 2, 8), (33, 7, 64), (31, 513, 40), (300, 1000, 96)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_loss_and_gradients_equal_the_reference(n: int, v: int, d: int, biased: bool, reduction: str) -> None:
    hidden, items, bias, targets = _case(n, v, d)
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(n, generator=generator)
    upstream = torch.rand(n, generator=generator) if reduction == "none" else torch.tensor(3.0)
    results = []
    for backend, dtype in (("cpu", torch.bfloat16), ("reference", torch.float64)):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in (hidden, items, bias)[: 2 + biased]]
        loss = linear_cross_entropy(
            leaves[0],
            leaves[1],
            targets,
            bias=leaves[2] if biased else None,
            weight=weight.to(dtype),
            label_smoothing=0.1,
            temperature=0.7,
            reduction=reduction,
            backend=backend,
        )
        loss.backward(upstream.to(loss.dtype))
        results.append([loss.detach().double(), *(x.grad.double() for x in leaves if x.grad is not None)])
    assert len(results[0]) == len(results[1]) == 3 + biased
    for ours, exact in zip(*results, strict=True):
        assert float((ours - exact).norm()) <= 2**-7 * float(exact.norm()) + 1e-6


def test_autocast_around_it_changes_nothing() -> None:
    hidden, items, _, targets = _case(70, 300, 64)
    plain = linear_cross_entropy(hidden, items, targets, label_smoothing=0.2, backend="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        wide = (hidden.float(), items.float())
        cast = linear_cross_entropy(*wide, targets, label_smoothing=0.2, backend="cpu")
    assert torch.equal(cast.bfloat16(), plain)


def test_the_loss_alone_equals_the_loss_with_gradients() -> None:
    hidden, items, _, targets = _case(70, 300, 64)
    with torch.no_grad():
        alone = linear_cross_entropy(hidden, items, targets, reduction="none", backend="cpu")
    beside = linear_cross_entropy(hidden.requires_grad_(), items, targets, reduction="none", backend="cpu")
    assert torch.equal(alone, beside)


@pytest.mark.usefixtures("_threads")
def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, items, _, targets = _case(500, 900, 64)
    monkeypatch.setattr("recsys.kernels.cross_entropy.cpu_tiles._STEPS_PER_PRODUCT", 1)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        leaves = [x.clone().requires_grad_() for x in (hidden, items)]
        loss = linear_cross_entropy(leaves[0], leaves[1], targets, backend="cpu")
        loss.backward()
        results.append([loss.detach(), *(x.grad for x in leaves)])
    for one, two in zip(*results, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


def test_not_a_number_in_a_row_stays_there() -> None:
    hidden, items, _, targets = _case(40, 300, 64)
    hidden[3, 5] = torch.nan
    losses = linear_cross_entropy(hidden, items, targets, reduction="none", backend="cpu")
    assert losses.isnan().nonzero().flatten().tolist() == [3]


def test_torch_finds_the_unit_as_it_left_it() -> None:
    hidden, items, _, targets = _case(256, 512, 64)
    wanted = hidden @ items.T
    linear_cross_entropy(hidden, items, targets, backend="cpu")
    assert torch.equal(hidden @ items.T, wanted)
