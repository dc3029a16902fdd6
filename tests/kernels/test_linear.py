import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.linear import Linear, linear, narrow_products
from recsys.kernels.linear import cpu as kernel
from recsys.kernels.shared.vector.tiles import tiles_available

tiled = pytest.mark.skipif(not tiles_available(), reason="this processor has no matrix tiles")


def _case(n: int, i: int, o: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((n, i), (o, i), (o,), (n, o))]


def _gradients(x: Tensor, weight: Tensor, bias: Tensor | None, upstream: Tensor) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    y = linear(leaves[0], leaves[1], leaves[2] if bias is not None else None)
    y.backward(upstream)
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@tiled
@pytest.mark.parametrize(("n", "i", "o"), [(1, 32, 32), (31, 64, 192), (300, 256, 64), (129, 96, 32)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_those_of_rounded_factors(n: int, i: int, o: int, biased: bool) -> None:
    x, weight, bias, upstream = _case(n, i, o)
    with narrow_products():
        ours = _gradients(x, weight, bias if biased else None, upstream)
    x, weight, g = (t.bfloat16().double() for t in (x, weight, upstream))
    exact = [x @ weight.T + (bias.double() if biased else 0.0), g @ weight, g.T @ x, upstream.double().sum(0)]
    assert len(ours) == 3 + biased
    for a, b in zip(ours, exact, strict=False):
        assert a.shape == b.shape
        assert float((a.double() - b).abs().max()) <= 1e-5 * float(b.abs().max())


@tiled
def test_more_dimensions_and_a_strided_gradient() -> None:
    x, weight, bias, _ = _case(24, 32, 64)
    with narrow_products():
        flat, shaped = linear(x, weight, bias), linear(x.view(2, 3, 4, 32), weight, bias)
        assert torch.equal(flat.view(2, 3, 4, 64), shaped)
        leaf = x.clone().requires_grad_()
        linear(leaf, weight).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(
        leaf.grad, weight.bfloat16().float().sum(0).expand(24, 32), rtol=1e-5, atol=1e-5
    )


@tiled
@pytest.mark.usefixtures("_threads")
def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_STEPS_PER_PRODUCT", 0.1)
    monkeypatch.setattr(kernel, "threads_for", lambda pieces, steps: min(torch.get_num_threads(), pieces))
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with narrow_products():
            results.append(_gradients(*_case(200, 64, 128)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@tiled
def test_what_does_not_fit_is_left_to_torch() -> None:
    with narrow_products():
        for n, i, o in ((5, 24, 32), (5, 32, 20), (0, 32, 32)):
            x, weight, bias, _ = _case(n, i, o)
            assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
        x, weight, bias, _ = (t.double() for t in _case(5, 32, 32))
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


def test_outside_the_block_it_is_torch() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Linear(32, 64)
    torch.manual_seed(0)
    ours = Linear(32, 64)
    x = torch.randn(7, 32)
    assert torch.equal(ours(x), theirs(x))


@tiled
def test_inside_the_block_the_layer_rounds() -> None:
    layer, x = Linear(32, 64, bias=False), torch.randn(7, 32)
    with narrow_products():
        inside = layer(x)
    assert not torch.equal(inside, layer(x))
    torch.testing.assert_close(inside, layer(x), rtol=0.05, atol=0.05)


def test_a_processor_without_the_unit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "tiles_available", lambda: False)
    with pytest.raises(ArgumentError, match="no matrix tiles"), narrow_products():
        pass
