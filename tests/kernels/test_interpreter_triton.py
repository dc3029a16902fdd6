"""The quicker interpreter of these tests gives what Triton's own gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recsys.kernels.attention import jagged_attention
from recsys.kernels.scan import selective_scan

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")


def _attention() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(27, 2, 16, generator=generator).requires_grad_() for _ in range(3))
    offsets = torch.tensor([0, 20, 20, 27]).int()
    drawn = torch.Generator().manual_seed(1)
    out = jagged_attention(
        q, k, v, offsets, causal=True, max_length=20, dropout_p=0.3, generator=drawn, backend="triton"
    )
    return [out.detach(), *torch.autograd.grad(out.sum(), (q, k, v))]


def _scan() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    u, delta, B, C, A = draw(6, 3), draw(6, 3), draw(6, 4), draw(6, 4), draw(3, 4)
    y = selective_scan(
        u, delta, -A.square(), B, C, offsets=torch.tensor([0, 5, 5, 6]).int(), backend="triton"
    )
    assert isinstance(y, Tensor)
    return [y.detach(), *torch.autograd.grad(y.sum(), (u, delta, B, C, A))]


@pytest.mark.parametrize("run", [_attention, _scan])
def test_the_quick_interpreter_gives_the_bits_of_the_plain_one(
    run: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.language import core

    quick, made = run(), core.tensor.__init__
    monkeypatch.undo()
    assert core.tensor.__init__ is not made
    plain = run()
    assert all(bool(x.isfinite().all()) and bool(x.any()) for x in plain)
    assert all(torch.equal(a, b) for a, b in zip(quick, plain, strict=True))
