import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from recsys.kernels.cross_entropy import linear_cross_entropy, triton
from recsys.kernels.shared.launching import Config


def _inputs(
    device: torch.device, n: int, v: int, d: int = 16, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator)
    items = torch.randn(v, d, generator=generator) * (4 / math.sqrt(d))
    targets = torch.randint(0, v, (n,), generator=generator)
    return hidden.to(device, dtype), items.to(device, dtype), targets.to(device)


def _run(
    inputs: tuple[Tensor, Tensor, Tensor],
    backend: str,
    *,
    upstream: Tensor | None = None,
    double: bool = False,
    **options: object,
) -> list[Tensor]:
    """The loss and its gradients in hidden, item_weight and, where given, bias."""

    def own(x: object) -> object:
        if not isinstance(x, Tensor):
            return x
        return x.detach().double() if double and x.is_floating_point() else x.detach().clone()

    hidden, items, targets = (own(x) for x in inputs)
    extra = {name: own(x) for name, x in options.items()}
    leaves = [x for x in (hidden, items, extra.get("bias")) if isinstance(x, Tensor)]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = linear_cross_entropy(hidden, items, targets, backend=backend, **extra)  # type: ignore[arg-type]
    loss.backward(None if upstream is None else upstream.to(loss.dtype))
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def _assert_right(inputs: tuple[Tensor, Tensor, Tensor], **options: object) -> None:
    """No further from the float64 reference than the reference in the inputs' own type, and 1e-5."""
    ours = _run(inputs, "triton", **options)  # type: ignore[arg-type]
    same = _run(inputs, "reference", **options)  # type: ignore[arg-type]
    exact = _run(inputs, "reference", double=True, **options)  # type: ignore[arg-type]
    assert len(ours) == len(exact)
    for a, b, c in zip(ours, same, exact, strict=True):
        assert a.shape == c.shape
        assert a.dtype == b.dtype
        error, allowed = (float((x.double() - c).norm()) for x in (a, b))
        assert error <= allowed + 1e-5 * float(c.norm()) + 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("n", "v", "d"),
    [(1, 7, 8), (127, 7, 64), (127, 1000, 48), (1, 1021, 64), (33, 300, 100), (20, 90, 320)],
)
def test_loss_and_gradients_equal_the_reference(
    device: torch.device, n: int, v: int, d: int, dtype: torch.dtype
) -> None:
    _assert_right(_inputs(device, n, v, d, seed=n + v, dtype=dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter cannot multiply bfloat16")
@pytest.mark.parametrize(("n", "v", "d"), [(127, 1021, 64), (4096, 50_021, 128), (100, 1000, 256)])
def test_bfloat16_equals_the_reference(device: torch.device, n: int, v: int, d: int) -> None:
    _assert_right(_inputs(device, n, v, d, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("reduction", "smoothing", "weighted", "biased"),
    [
        ("mean", 0.2, True, True),
        ("sum", 0.2, False, True),
        ("none", 0.2, True, False),
        ("none", 0.0, False, True),
        ("mean", 0.0, True, False),
        ("mean", 1.0, False, False),
    ],
)
def test_every_option_equals_the_reference(
    device: torch.device, reduction: str, smoothing: float, weighted: bool, biased: bool, dtype: torch.dtype
) -> None:
    n, v = 150, 300
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(n, generator=generator)
    weights[::3] = 0
    upstream = torch.randn((n,) if reduction == "none" else (), generator=generator).to(device)
    _assert_right(
        _inputs(device, n, v, seed=3, dtype=dtype),
        upstream=upstream,
        reduction=reduction,
        label_smoothing=smoothing,
        temperature=0.6,
        weight=weights.to(device, dtype) if weighted else None,
        bias=torch.randn(v, generator=generator).to(device, dtype) if biased else None,
    )


def test_a_catalog_of_many_splits_equals_the_reference(device: torch.device) -> None:
    items = 50_021 if device.type == "cuda" else 5_003
    assert triton.split_items(items)[1] > 3
    _assert_right(_inputs(device, 5, items, 16, dtype=torch.float16))


def test_splits_cover_the_catalog_in_whole_tiles() -> None:
    for items in (1, 7, 1000, 4097, 10**5, 10**6, 10**7):
        length, splits = triton.split_items(items)
        assert length % 128 == 0
        assert 1 <= splits <= triton.MOST_SPLITS
        assert (splits - 1) * length < items <= splits * length


@pytest.mark.parametrize("polynomial", [0, 1])
def test_any_share_of_polynomial_exponentials_is_right(
    device: torch.device, polynomial: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = triton._config

    def forced(kernel: str, hidden: Tensor) -> Config:
        found = choose(kernel, hidden)
        blocks = dict(found.blocks)
        if "POLYNOMIAL" in blocks:
            blocks["POLYNOMIAL"] = polynomial
        return Config(blocks=blocks, num_warps=found.num_warps, num_stages=found.num_stages)

    monkeypatch.setattr(triton, "_config", forced)
    _assert_right(_inputs(device, 65, 500, 32))


def test_slabs_of_rows_change_no_bit(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _inputs(device, 140, 1100, 8, seed=5, dtype=torch.float16)
    assert triton.split_items(1100)[1] == 2
    ones = torch.ones(140, device=device)
    whole = _run(inputs, "triton", reduction="none", upstream=ones)
    monkeypatch.setattr(triton, "WORKSPACE", 1)
    assert triton.slab_rows(2, 8) == 128
    slabs = _run(inputs, "triton", reduction="none", upstream=ones)
    assert all(torch.equal(a, b) for a, b in zip(whole, slabs, strict=True))


@pytest.mark.parametrize("programs", [1, 512])
def test_parts_of_rows_add_up(device: torch.device, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "PROGRAMS", programs)
    assert (triton.split_rows(600, 2, 32)[1] > 1) == (programs > 1)
    bias = torch.linspace(-1, 1, 100, device=device)
    _assert_right(_inputs(device, 600, 100, 8), bias=bias, label_smoothing=0.1)


@pytest.fixture
def _equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter's products give a row the same bits wherever it lies: not every BLAS does."""
    if torch.cuda.is_available():
        return
    from triton.runtime import interpreter

    def create_dot(_: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
        product = np.matmul(a.data, b.data, dtype=np.float64) + d.data
        return interpreter.TensorHandle(product.astype(d.data.dtype), d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.usefixtures("_equal_rows")
def test_a_row_has_the_same_bits_in_any_batch(device: torch.device) -> None:
    hidden, items, targets = _inputs(device, 100, 200, 24)

    def run(rows: Tensor) -> list[Tensor]:
        ones = torch.ones(len(rows), device=device)
        part = (hidden[rows], items, targets[rows])
        return _run(part, "triton", reduction="none", upstream=ones, label_smoothing=0.1)[:2]

    batch = run(torch.arange(100))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for a, b in zip(run(order), batch, strict=True):
        assert torch.equal(a, b[order])
    for row in (0, 63, 64, 99):
        for a, b in zip(run(torch.tensor([row])), batch, strict=True):
            assert torch.equal(a, b[[row]])


def test_runs_are_equal_bit_for_bit(device: torch.device) -> None:
    inputs = _inputs(device, 130, 300)
    first, again = (_run(inputs, "triton", label_smoothing=0.1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_extreme_logits_give_finite_and_right_losses(device: torch.device) -> None:
    items = torch.eye(16, device=device).repeat(8, 1)
    hidden = torch.zeros(3, 16, device=device)
    hidden[:, 0] = torch.tensor([80.0, -80.0, 69.0])
    targets = torch.tensor([1, 0, 5], device=device)  # the third has probability 1e-30 or so
    _assert_right((hidden, items, targets), reduction="none", upstream=torch.ones(3, device=device))
    sure = linear_cross_entropy(hidden[:1], items[:16], torch.zeros_like(targets[:1]), backend="triton")
    assert -1e-6 <= float(sure) < 1e-6


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:All-NaN slice")  # the interpreter's numpy
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(device: torch.device, value: float) -> None:
    hidden, items, targets = _inputs(device, 5, 200)
    hidden[2, 0] = value
    losses = linear_cross_entropy(hidden, items, targets, reduction="none", backend="triton")
    assert torch.isfinite(losses).tolist() == [True, True, False, True, True]
    hidden[2, 0] = 1.0
    for item in (0, 63, 199):
        broken = items.clone()
        broken[item] = math.nan
        losses = linear_cross_entropy(hidden, broken, targets, reduction="none", backend="triton")
        assert not torch.isfinite(losses).any()


def test_a_target_out_of_range_makes_its_row_nan(device: torch.device) -> None:
    hidden, items, _ = _inputs(device, 4, 70)
    targets = torch.tensor([3, -1, 70, 2**32 + 3], device=device)
    losses = triton.row_losses(hidden, items, None, targets, 0.0, 1.0, False, True)[0]
    assert torch.isnan(losses).tolist() == [False, True, True, True]


def test_rows_without_weight_count_for_nothing(device: torch.device) -> None:
    hidden, items, targets = _inputs(device, 100, 50)
    kept = torch.arange(100, device=device) % 2 == 1
    ours = _run((hidden, items, targets), "triton", weight=kept.float())
    alone = _run((hidden[kept], items, targets[kept]), "triton")
    torch.testing.assert_close(ours[0], alone[0])
    torch.testing.assert_close(ours[1][kept], alone[1])
    assert not ours[1][~kept].any()
    torch.testing.assert_close(ours[2], alone[2])
    assert not any(
        x.any() for x in _run((hidden, items, targets), "triton", weight=torch.zeros_like(kept).float())
    )


def test_no_rows_give_no_loss(device: torch.device) -> None:
    bias = torch.ones(5, device=device)
    loss, d_hidden, d_items, d_bias = _run(_inputs(device, 0, 5), "triton", bias=bias, label_smoothing=0.1)
    assert float(loss) == 0
    assert d_hidden.shape == (0, 16)
    assert not d_items.any()
    assert not d_bias.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_catalog_of_one_item_has_no_loss_and_no_gradient(device: torch.device, smoothing: float) -> None:
    for x in _run(_inputs(device, 70, 1), "triton", label_smoothing=smoothing):
        assert float(x.abs().max()) < 1e-6


def test_gradients_are_made_for_what_wants_them(device: torch.device) -> None:
    hidden, items, targets = _inputs(device, 20, 30)
    _, d_hidden, d_items = _run((hidden, items, targets), "triton")
    alone = hidden.clone().requires_grad_()
    linear_cross_entropy(alone, items, targets, backend="triton").backward()
    assert alone.grad is not None
    assert torch.equal(alone.grad, d_hidden)
    table = items.clone().requires_grad_()
    loss = linear_cross_entropy(hidden, table, targets, backend="triton")
    (first,) = torch.autograd.grad(loss, table, retain_graph=True)
    (again,) = torch.autograd.grad(3 * loss, table)
    assert torch.equal(first, d_items)
    torch.testing.assert_close(again, 3 * first)


def test_the_logits_never_exist_at_once(device: torch.device, sizes: list[int]) -> None:
    rows, items = 200, 1500
    inputs = _inputs(device, rows, items, 8, dtype=torch.float16)
    sizes.clear()
    _run(inputs, "triton")
    assert sizes
    assert max(sizes) <= items * 8


def test_memory_layout_does_not_matter(device: torch.device) -> None:
    hidden, items, targets = _inputs(device, 30, 20)
    odd = (
        torch.stack((hidden, hidden), 2)[:, :, 0],
        items.T.contiguous().T,
        torch.stack((targets, targets), 1)[:, 0],
    )
    found = linear_cross_entropy(*odd, backend="triton")
    assert torch.equal(found, linear_cross_entropy(hidden, items, targets, backend="triton"))


def _sure(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that give nearly everything to the first items, so that later tiles hold small values only."""
    generator = torch.Generator().manual_seed(2)
    items = torch.randn(600, 16, generator=generator) * 0.1
    items[:3, 0] += 1.0
    hidden = torch.randn(40, 16, generator=generator) * 0.1
    hidden[:, 0] = 30.0
    return hidden.to(device), items.to(device), torch.randint(0, 3, (40,), generator=generator).to(device)


def test_small_softmax_values_may_be_skipped(device: torch.device) -> None:
    inputs = _sure(device)
    bias = torch.zeros(600, device=device)
    limit = torch.finfo(torch.float32).eps / 32
    for smoothing in (0.0, 0.1):
        options = {"bias": bias, "label_smoothing": smoothing, "reduction": "sum"}
        off = _run(inputs, "triton", **options)  # type: ignore[arg-type]
        on = _run(inputs, "triton", skip_small=True, **options)  # type: ignore[arg-type]
        entrywise = _run(inputs, "reference", skip_small=True, **options)  # type: ignore[arg-type]
        whole = _run(inputs, "reference", **options)  # type: ignore[arg-type]
        assert torch.equal(on[0], off[0])
        shares = (inputs[0].double() @ inputs[1].double().T).softmax(1)
        small = shares.max(0)[0] < limit / 2
        assert int(small.sum()) > 400
        # What is left of an item whose values are all small, and whom no row has as target, is smoothing.
        left = -smoothing / 600 * inputs[0].sum(0)
        torch.testing.assert_close(
            entrywise[2][small], left.expand(int(small.sum()), 16), rtol=1e-5, atol=1e-6
        )
        assert small[-128:].all()
        torch.testing.assert_close(on[2][-64:], left.expand(64, 16), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(on[3][-64:], torch.full_like(on[3][-64:], -40 * smoothing / 600))
        if smoothing == 0.0:
            assert not on[2][-64:].any()
            assert off[2][-64:].any()
        for a, b, c in zip(on, entrywise, whole, strict=True):
            bound = 600 * 40 * limit * 30
            assert float((a - b).abs().max()) <= bound + 1e-5 * float(c.abs().max())


def test_skipping_where_nothing_is_small_changes_nothing(device: torch.device) -> None:
    inputs = _inputs(device, 70, 200)
    on, off = (_run(inputs, "triton", skip_small=skip, label_smoothing=0.1) for skip in (True, False))
    for a, b in zip(on, off, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_the_registered_operations_pass_torch_checks(device: torch.device) -> None:
    hidden, items, targets = _inputs(device, 6, 5)
    bias = torch.ones(5, device=device)
    leaves = hidden.requires_grad_(), items.requires_grad_(), bias.requires_grad_()
    torch.library.opcheck(triton.row_losses, (*leaves, targets, 0.1, 0.5, False, True))
    plain = [x.detach() for x in leaves]
    torch.library.opcheck(triton.row_losses, (plain[0], leaves[1], None, targets, 0.0, 0.5, False, False))
    ones = torch.ones(6, device=device)
    torch.library.opcheck(triton.summed_item_gradients, (*plain, targets, ones, ones, 0.1, 0.5, False))
