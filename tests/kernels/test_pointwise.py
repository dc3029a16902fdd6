import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.pointwise import activate, add_dropped, dropout, rotate_parts
from recsys.kernels.pointwise.mask import keep_mask, keep_threshold
from tests.kernels.tensors import assert_near

NEAR = {"relative": 3e-7}

SIZES = ((0, 20), (1, 1), (3, 5), (37, 64), (70, 50), (600, 100))
"""(N, D); the last in several pieces of work."""


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed)) * 3


Operation = Callable[..., Tensor]

OPERATIONS: dict[str, tuple[Operation, tuple[int, ...]]] = {
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
    name: str, inputs: Sequence[Tensor], p: float, dtype: torch.dtype, backend: str | None
) -> list[Tensor]:
    """The result and the gradients of all inputs."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
    out = OPERATIONS[name][0](*leaves, p, backend=backend)
    upstream = _draw(*out.shape, seed=9).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("size", SIZES)
def test_cpu_agrees_with_the_double_precision_reference(name: str, p: float, size: tuple[int, int]) -> None:
    inputs = _inputs(name, *size)
    wanted = _with_gradients(name, inputs, p, torch.float64, "reference")
    assert_near(_with_gradients(name, inputs, p, torch.float32, "cpu"), wanted, **NEAR)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_reference_has_true_gradients(name: str) -> None:
    leaves = [x.double().requires_grad_() for x in _inputs(name, 3, 4)]
    assert torch.autograd.gradcheck(lambda *x: OPERATIONS[name][0](*x, 0.3, backend="reference"), leaves)


def test_the_operations_compute_cases_worked_by_hand() -> None:
    x = torch.tensor([[1.0, -2.0]])
    gate = torch.tensor([[0.0, 100.0]])
    assert add_dropped(x, 10 * x, gate=gate).tolist() == [[6.0, -22.0]]
    assert add_dropped(x, 10 * x).tolist() == [[11.0, -22.0]]
    assert activate(torch.tensor([[3.0, 100.0]]), "swiglu", backend="cpu").tolist() == [[300.0]]
    torch.testing.assert_close(activate(x, "gelu", backend="cpu"), torch.tensor([[0.8413447, -0.0455003]]))
    turned, still = rotate_parts(
        torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 1, 2), torch.zeros(1, 1), torch.ones(1, 1), 1
    )
    assert turned.tolist() == [[[-2.0, 1.0]]]
    assert still.tolist() == [[[3.0, 4.0]]]


def test_gelu_is_true_in_both_tails() -> None:
    x = torch.linspace(-12, 12, 20_001).view(1, -1).requires_grad_()
    y = activate(x, "gelu", backend="cpu")
    true = x.detach().double().requires_grad_()
    wanted = F.gelu(true)
    share = 0.5 * torch.special.erfc(-true.detach() / 2**0.5)  # F.gelu loses the left tail in any precision
    torch.testing.assert_close(y.double(), true.detach() * share, rtol=1e-5, atol=0)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(wanted.sum(), true)
    torch.testing.assert_close(derivative.double(), expected, rtol=0, atol=5e-7)


def test_a_gate_far_from_zero_is_open_or_shut_and_its_gradients_are_finite() -> None:
    gate = torch.tensor([[-200.0, -90.0, 90.0, 200.0]]).requires_grad_()
    x, y = torch.zeros(1, 4), torch.ones(1, 4)
    out = add_dropped(x, y, gate=gate, backend="cpu")
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    (derivative,) = torch.autograd.grad(out.sum(), gate)
    assert derivative.isfinite().all()
    assert derivative.abs().max() < 1e-6


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_mask_drops_the_share_asked_for_and_scales_the_rest(p: float) -> None:
    rows, columns = 2000, 100
    kept = dropout(torch.ones(rows, columns), p, _generator())
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p)))}
    # Four and a half standard deviations of as many independent draws: of all, of each row and each column.
    gone = (kept == 0).double()
    deviation = (p * (1 - p)) ** 0.5
    assert abs(gone.mean() - p) < 4.5 * deviation / (rows * columns) ** 0.5
    assert (gone.mean(0) - p).abs().max() < 4.5 * deviation / rows**0.5
    assert (gone.mean(1) - p).abs().max() < 4.5 * deviation / columns**0.5


def test_neighbouring_elements_rows_and_seeds_are_dropped_independently() -> None:
    rows, columns, p = 2000, 100, 0.3
    here = keep_mask(77, rows, columns, p).double() - (1 - p)
    others = {
        "next column": here.roll(1, 1),
        "next row": here.roll(1, 0),
        "eighth row": here.roll(8, 0),
        "next seed": keep_mask(78, rows, columns, p).double() - (1 - p),
        "high bit of the seed": keep_mask(77 + 2**62, rows, columns, p).double() - (1 - p),
        "next column of the next row": here.roll((1, 1), (0, 1)),
    }
    for name, there in others.items():
        correlation = (here * there).mean() / (p * (1 - p))
        assert abs(correlation) < 4.5 / (rows * columns) ** 0.5, name


def test_a_row_is_masked_alike_however_wide_and_whatever_follows() -> None:
    wide = keep_mask(3, 50, 90, 0.4)
    assert torch.equal(wide[:7, :33], keep_mask(3, 7, 33, 0.4))
    assert keep_threshold(0.4) == round(0.4 * 2**32)


def test_calls_take_one_number_from_the_generator_each() -> None:
    ours, plain = _generator(), _generator()
    x, qkv = torch.ones(4, 8), torch.ones(4, 16)
    dropout(x, 0.5, ours)
    add_dropped(x, x, 0.5, ours, gate=x)
    activate(qkv, "swiglu", 0.5, ours)
    activate(x, "gelu", 0.5, ours, backend="reference")
    dropout(x, 0.0, ours)
    add_dropped(x, x, 0.0, ours)
    for _ in range(4):
        torch.randint(0, 2**63 - 1, (), generator=plain)
    assert torch.equal(ours.get_state(), plain.get_state())


def test_nothing_is_dropped_without_a_generator() -> None:
    x = _draw(3, 8)
    assert dropout(x, 0.5, None) is x
    assert torch.equal(add_dropped(x, x, 0.5), 2 * x)
    assert torch.equal(activate(x, "gelu", 0.5), F.gelu(x))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_thread_count_gives_the_same_bits(name: str) -> None:
    inputs = _inputs(name, 30_000, 70)
    runs = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        runs.append(_with_gradients(name, inputs, 0.3, torch.float32, None))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_take_the_reference_and_keep_their_type(name: str, dtype: torch.dtype) -> None:
    inputs = [x.to(dtype) for x in _inputs(name, 6, 20)]
    ours = _with_gradients(name, inputs, 0.3, dtype, None)
    wanted = _with_gradients(name, inputs, 0.3, torch.float64, "reference")
    assert all(x.dtype == dtype for x in ours)
    for mine, want in zip(ours, wanted, strict=True):
        assert (mine.double() - want).norm() <= 2e-2 * want.norm()


@pytest.mark.parametrize("name", OPERATIONS)
def test_strided_inputs_give_the_same_bits(name: str) -> None:
    inputs = _inputs(name, 40, 30)
    strided = [torch.stack((x, x + 1), dim=-1)[..., 0] for x in inputs]
    assert not any(x.is_contiguous() for x in strided)
    apply = OPERATIONS[name][0]
    assert torch.equal(apply(*strided, 0.3, backend="cpu"), apply(*inputs, 0.3, backend="cpu"))


def test_an_upstream_of_one_number_spread_out_is_read_rightly() -> None:
    x = _draw(20, 30).requires_grad_()
    dropout(x, 0.3, _generator(), backend="cpu").sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropout(torch.ones(20, 30), 0.3, _generator()))


def test_nan_survives() -> None:
    x = torch.full((20, 30), torch.nan)
    for name in OPERATIONS:
        inputs = [x.repeat(1, times) for times in OPERATIONS[name][1]]
        assert OPERATIONS[name][0](*inputs, 0.3, backend="cpu").isnan().all()


ROTATIONS = ((0, 3, 2, 32), (1, 1, 1, 2), (9, 3, 2, 32), (40, 2, 3, 10), (700, 3, 1, 50))
"""(N, P, H, E)."""


def _turn(
    shape: tuple[int, ...], turned: int, used: Sequence[int], dtype: torch.dtype, backend: str
) -> list[Tensor]:
    """The parts, and the gradient of what they come from through some of them."""
    angles = _draw(shape[0], shape[3] // 2, seed=1).to(dtype)
    x = _draw(*shape).to(dtype).requires_grad_()
    parts = rotate_parts(x, angles.cos(), angles.sin(), turned, backend=backend)
    chosen = [parts[i] for i in used]
    upstreams = [_draw(*part.shape, seed=20 + i).to(dtype) for i, part in enumerate(chosen)]
    return [*(part.detach() for part in parts), *torch.autograd.grad(chosen, [x], upstreams)]


@pytest.mark.parametrize("shape", ROTATIONS)
def test_rotated_parts_agree_with_the_double_precision_reference(shape: tuple[int, ...]) -> None:
    for turned in range(shape[1] + 1):
        for used in ({0}, set(range(shape[1]))):
            order = sorted(used, reverse=True)
            wanted = _turn(shape, turned, order, torch.float64, "reference")
            assert_near(_turn(shape, turned, order, torch.float32, "cpu"), wanted, **NEAR)


def test_a_rotation_keeps_lengths_and_inner_products_at_equal_distance() -> None:
    positions = torch.tensor([3.0, 7.0, 103.0, 107.0])
    angles = positions[:, None] * torch.tensor([1.0, 0.1, 0.01])
    x = _draw(1, 2, 1, 6).expand(4, 2, 1, 6)
    q, k = rotate_parts(x, angles.cos(), angles.sin(), 2, backend="cpu")
    torch.testing.assert_close(q.norm(dim=-1), x[:, 0].norm(dim=-1))
    torch.testing.assert_close((q[0] * k[1]).sum(), (q[2] * k[3]).sum(), rtol=1e-4, atol=1e-4)


def test_strided_parts_and_gradients_are_read_rightly() -> None:
    angles = _draw(12, 5, seed=1)
    whole = _draw(12, 3, 2, 10)
    strided = torch.stack((whole, whole), dim=-1)[..., 0].requires_grad_()
    parts = rotate_parts(strided, angles.cos(), angles.sin(), 2, backend="cpu")
    plain = whole.clone().requires_grad_()
    wanted = rotate_parts(plain, angles.cos(), angles.sin(), 2, backend="cpu")
    assert all(torch.equal(a, b) for a, b in zip(parts, wanted, strict=True))
    upstreams = [_draw(2, 10, 12, seed=i).permute(2, 0, 1) for i in range(3)]
    (ours,) = torch.autograd.grad(parts, [strided], upstreams)
    (theirs,) = torch.autograd.grad(wanted, [plain], [x.contiguous() for x in upstreams])
    assert torch.equal(ours, theirs)


def test_small_work_without_dropout_and_the_kernels_agree() -> None:
    x, y, gate, wide = _draw(4, 8), _draw(4, 8), _draw(4, 8), _draw(4, 16)
    torch.testing.assert_close(add_dropped(x, y, gate=gate), add_dropped(x, y, gate=gate, backend="cpu"))
    torch.testing.assert_close(activate(wide, "swiglu"), activate(wide, "swiglu", backend="cpu"))


def test_the_compiled_operations_are_registered_soundly() -> None:
    from recsys.kernels.pointwise import cpu_activate, cpu_dropout, cpu_rotate

    x, y, gate = (_draw(5, 6, seed=i).requires_grad_() for i in range(3))
    torch.library.opcheck(cpu_dropout.drop.operator, (x, y, gate, 0.3, 7))
    torch.library.opcheck(cpu_dropout.drop.operator, (None, y, None, 0.3, 7))
    for swiglu in (False, True):
        torch.library.opcheck(cpu_activate.activate.operator, (x, swiglu, 0.3, 7))
    qkv = _draw(5, 3, 2, 4).requires_grad_()
    torch.library.opcheck(cpu_rotate.rotate.operator, (qkv, _draw(5, 2), _draw(5, 2), 2))


X, WIDE = torch.zeros(4, 6), torch.zeros(4, 3, 2, 8)
ANGLES = torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dropout(torch.zeros(4), 0.1, None), "dropout: x is torch.float32 of shape (4,)"),
        (lambda: dropout(X.long(), 0.1, None), "dropout: x is torch.int64"),
        (lambda: dropout(X, 1.0, None), "dropout: dropout_p is 1.0, want at least 0 and below 1"),
        (lambda: add_dropped(X, X[:3]), "add_dropped: y has shape (3, 6), want (N, D) = (4, 6)"),
        (lambda: add_dropped(X, X, gate=X[:, :1]), "add_dropped: gate has shape (4, 1)"),
        (lambda: add_dropped(X, X.bfloat16(), backend="cpu"), "takes float32 throughout"),
        (lambda: dropout(X.double(), 0.1, _generator(), backend="cpu"), "takes float32 throughout"),
        (lambda: activate(X, "relu"), "activate: kind is 'relu', use 'gelu' or 'swiglu'"),  # type: ignore[arg-type]
        (lambda: activate(X[:, :5], "swiglu"), "activate: x has shape (4, 5), want an even width"),
        (lambda: activate(X, "gelu", backend="mamba-ssm"), "pointwise: backend is 'mamba-ssm', use one of"),
        (lambda: rotate_parts(X, ANGLES, ANGLES, 1), "want floating (N, P, H, E) with E even"),
        (lambda: rotate_parts(WIDE, ANGLES, ANGLES, 4), "turned is 4, want 0 to P = 3"),
        (lambda: rotate_parts(WIDE, ANGLES, ANGLES[:2], 2), "sin has shape (2, 4), want (N, E / 2) = (4, 4)"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", [16, 20, 64])
def test_a_row_has_the_same_bits_in_any_batch(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x, y, gate, pair = (torch.randn(700, size, generator=generator) for size in (*[width] * 3, 2 * width))
    for rows in (1, 17, 300):
        few = slice(0, rows)
        assert torch.equal(activate(x[few], "gelu"), activate(x, "gelu")[few])
        assert torch.equal(activate(pair[few], "swiglu"), activate(pair, "swiglu")[few])
        whole = add_dropped(x, y, gate=gate)
        assert torch.equal(add_dropped(x[few], y[few], gate=gate[few]), whole[few])
