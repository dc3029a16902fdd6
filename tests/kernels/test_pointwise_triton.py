import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.kernels.pointwise import activate, add_dropped, dropout, rotate_parts, triton
from recsys.kernels.pointwise.mask import keep_mask
from tests.kernels.tensors import assert_near

SIZES = ((0, 20), (1, 1), (37, 64), (70, 50), (9, 300))
"""(N, D)."""


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed)) * 3


OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "dropout": (lambda x, p, **o: dropout(x, p, _generator(), **o), (1,)),
    "residual": (lambda x, y, p, **o: add_dropped(x, y, p, _generator(), **o), (1, 1)),
    "gated": (lambda x, y, g, p, **o: add_dropped(x, y, p, _generator(), gate=g, **o), (1, 1, 1)),
    "gelu": (lambda x, p, **o: activate(x, "gelu", p, _generator(), **o), (1,)),
    "swiglu": (lambda x, p, **o: activate(x, "swiglu", p, _generator(), **o), (2,)),
}
"""Each with the width of its inputs, in widths of its result."""


def _inputs(name: str, rows: int, width: int) -> list[Tensor]:
    return [_draw(rows, width * times, seed=i) for i, times in enumerate(OPERATIONS[name][1])]


def _with_gradients(
    name: str,
    inputs: Sequence[Tensor],
    p: float,
    backend: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The result and the gradients of all inputs, on the CPU."""
    leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in inputs]
    out = OPERATIONS[name][0](*leaves, p, backend=backend)
    upstream = _draw(*out.shape, seed=9).to(device, dtype)
    return [x.detach().cpu() for x in (out, *torch.autograd.grad(out, leaves, upstream))]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("size", SIZES)
def test_results_and_gradients_are_the_definitions_with_the_same_mask(
    name: str, p: float, size: tuple[int, int], device: torch.device
) -> None:
    inputs = _inputs(name, *size)
    wanted = _with_gradients(name, inputs, p, "reference", torch.device("cpu"), torch.float64)
    found = _with_gradients(name, inputs, p, "triton", device)
    assert_near(found, wanted, 1e-6)
    again = _with_gradients(name, inputs, p, "triton", device)
    assert all(torch.equal(a, b) for a, b in zip(again, found, strict=True))


def test_the_mask_is_that_of_the_definition_for_any_seed(device: torch.device) -> None:
    for seed in (0, 77, 2**63 - 2):
        number = torch.tensor(seed, device=device)
        found = triton.drop_forward(None, torch.ones(33, 90, device=device), None, number, 0.4)
        assert torch.equal(found.cpu() > 0, keep_mask(seed, 33, 90, 0.4))
        assert torch.equal(keep_mask(number, 33, 90, 0.4, device=device).cpu(), keep_mask(seed, 33, 90, 0.4))


@pytest.mark.parametrize("name", OPERATIONS)
def test_half_precision_is_rounded_once(name: str, device: torch.device) -> None:
    inputs = [x.half() for x in _inputs(name, 40, 64)]
    wanted = _with_gradients(name, inputs, 0.3, "reference", torch.device("cpu"), torch.float64)
    found = _with_gradients(name, inputs, 0.3, "triton", device, torch.float16)
    assert {x.dtype for x in found} == {torch.float16}
    assert_near(found, wanted, 5e-4)


def test_a_state_in_float32_takes_a_branch_in_half_precision(device: torch.device) -> None:
    x = _draw(20, 32).to(device).requires_grad_()
    y = _draw(20, 32, seed=1).half().to(device).requires_grad_()
    out = add_dropped(x, y, 0.3, _generator(), backend="triton")
    # Nothing is rounded to half precision on the way, as the definition's product would be.
    wanted = add_dropped(x, y.float(), 0.3, _generator(), backend="reference")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted)
    dx, dy = torch.autograd.grad(out.sum(), (x, y))
    assert dx.dtype == torch.float32
    assert dy.dtype == torch.float16
    assert torch.equal(dx, torch.ones_like(dx))


def test_gelu_is_true_in_both_tails(device: torch.device) -> None:
    x = torch.linspace(-12, 12, 2_001).view(1, -1).to(device).requires_grad_()
    y = activate(x, "gelu", backend="triton")
    true = x.detach().double().cpu().requires_grad_()
    share = 0.5 * torch.special.erfc(-true.detach() / 2**0.5)  # F.gelu loses the left tail in any precision
    torch.testing.assert_close(y.double().cpu(), true.detach() * share, rtol=1e-5, atol=0)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(F.gelu(true).sum(), true)
    torch.testing.assert_close(derivative.double().cpu(), expected, rtol=0, atol=5e-7)


def test_a_gate_far_from_zero_is_open_or_shut_and_its_gradients_are_finite(device: torch.device) -> None:
    gate = torch.tensor([[-200.0, -90.0, 90.0, 200.0]], device=device).requires_grad_()
    x, y = torch.zeros(1, 4, device=device), torch.ones(1, 4, device=device)
    out = add_dropped(x, y, gate=gate, backend="triton")
    torch.testing.assert_close(out.cpu(), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    (derivative,) = torch.autograd.grad(out.sum(), gate)
    assert derivative.isfinite().all()
    assert derivative.abs().max() < 1e-6


@pytest.mark.parametrize("name", OPERATIONS)
def test_strided_inputs_and_a_gradient_of_one_number_are_read_rightly(
    name: str, device: torch.device
) -> None:
    inputs = [x.to(device) for x in _inputs(name, 20, 30)]
    strided = [torch.stack((x, x + 1), dim=-1)[..., 0] for x in inputs]
    found = []
    for tensors in (inputs, strided):
        leaves = [x.detach().requires_grad_() for x in tensors]
        out = OPERATIONS[name][0](*leaves, 0.3, backend="triton")
        found.append([out.detach(), *torch.autograd.grad(out.sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("width", [16, 64, 300])
def test_a_row_has_the_same_bits_in_any_batch(width: int, device: torch.device) -> None:
    x, y, gate, pair = (_draw(60, n, seed=i).to(device) for i, n in enumerate((*[width] * 3, 2 * width)))
    for rows in (1, 17):
        few = slice(0, rows)
        for kind, tensor in (("gelu", x), ("swiglu", pair)):
            whole = activate(tensor, kind, 0.3, _generator(), backend="triton")  # type: ignore[arg-type]
            part = activate(tensor[few], kind, 0.3, _generator(), backend="triton")  # type: ignore[arg-type]
            assert torch.equal(part, whole[few])
        whole = add_dropped(x, y, 0.3, _generator(), gate=gate, backend="triton")
        part = add_dropped(x[few], y[few], 0.3, _generator(), gate=gate[few], backend="triton")
        assert torch.equal(part, whole[few])


def test_nan_survives(device: torch.device) -> None:
    for name in OPERATIONS:
        inputs = [torch.full((20, 30 * times), math.nan, device=device) for times in OPERATIONS[name][1]]
        assert OPERATIONS[name][0](*inputs, 0.3, backend="triton").isnan().all()


ROTATIONS = ((0, 3, 2, 32), (1, 1, 1, 2), (9, 3, 2, 32), (40, 2, 3, 10), (7, 4, 5, 64), (3, 5, 1, 4))
"""(N, P, H, E); the last has more parts than a launch takes."""


def _turn(
    shape: tuple[int, ...], turned: int, used: Sequence[int], dtype: torch.dtype, backend: str, where: str
) -> list[Tensor]:
    """The parts, and the gradient of what they come from through some of them."""
    angles = _draw(shape[0], shape[3] // 2, seed=1).to(where, dtype)
    x = _draw(*shape).to(where, dtype).requires_grad_()
    parts = rotate_parts(x, angles.cos(), angles.sin(), turned, backend=backend)
    chosen = [parts[i] for i in used]
    # Strided gradients, too.
    upstreams = [_draw(*part.shape, 2, seed=20 + i).to(where, dtype)[..., 0] for i, part in enumerate(chosen)]
    return [*(part.detach() for part in parts), *torch.autograd.grad(chosen, [x], upstreams)]


@pytest.mark.parametrize("shape", ROTATIONS)
def test_rotated_parts_are_the_definitions(shape: tuple[int, ...], device: torch.device) -> None:
    for turned in {0, 1, shape[1]}:
        for used in ([0], list(range(shape[1]))):
            wanted = _turn(shape, turned, used, torch.float64, "reference", "cpu")
            found = _turn(shape, turned, used, torch.float32, "triton", device.type)
            assert_near([x.cpu() for x in found], wanted, 3e-7)


def test_the_operations_are_registered_soundly(device: torch.device) -> None:
    x, y, gate = (_draw(5, 6, seed=i).to(device).requires_grad_() for i in range(3))
    seed = torch.tensor(7, device=device)
    torch.library.opcheck(triton.drop_forward, (x, y, gate, seed, 0.3))
    torch.library.opcheck(triton.drop_forward, (None, y, None, seed, 0.3))
    for swiglu in (False, True):
        torch.library.opcheck(triton.activate_forward, (x, swiglu, seed, 0.3))
    qkv, angles = _draw(5, 3, 2, 4).to(device).requires_grad_(), _draw(5, 2).to(device)
    torch.library.opcheck(triton.rotate_forward, (qkv, angles, angles, 2))
