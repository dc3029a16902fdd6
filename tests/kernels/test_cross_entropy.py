import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.cross_entropy import cpu, linear_cross_entropy
from tests.kernels.tensors import assert_near

NEAR = {"relative": 5e-6, "floor": 1e-6}


def _inputs(n: int, v: int, d: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64)
    weight = torch.randn(v, d, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, v, (n,), generator=generator)
    return [hidden.to(dtype), weight.to(dtype), targets]


def _both(
    inputs: list[Tensor], backend: str, upstream: Tensor | None = None, **options: object
) -> tuple[Tensor, ...]:
    double = backend == "reference"
    leaves = [x.double() if double else x.clone() for x in inputs[:2]]
    extra = {
        k: v.double() if double and isinstance(v, Tensor) else v.clone() if isinstance(v, Tensor) else v
        for k, v in options.items()
    }
    if isinstance(extra.get("bias"), Tensor):
        leaves.append(extra["bias"])  # type: ignore[arg-type]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = linear_cross_entropy(leaves[0], leaves[1], inputs[2], backend=backend, **extra)  # type: ignore[arg-type]
    loss.backward(None if upstream is None else upstream.to(loss.dtype))
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == len(leaves)
    return loss.detach(), *gradients


def test_the_reference_is_torch_cross_entropy() -> None:
    hidden, weight, targets = _inputs(9, 5, dtype=torch.float64)
    for smoothing, temperature in itertools.product((0.0, 0.2), (1.0, 0.5)):
        ours = linear_cross_entropy(
            hidden, weight, targets, label_smoothing=smoothing, temperature=temperature, backend="reference"
        )
        theirs = F.cross_entropy(hidden @ weight.T / temperature, targets, label_smoothing=smoothing)
        torch.testing.assert_close(ours, theirs)


def test_the_reference_has_right_gradients() -> None:
    hidden, weight, targets = _inputs(6, 4, d=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: linear_cross_entropy(
            h, w, targets, label_smoothing=0.1, temperature=0.7, reduction="none", backend="reference"
        ),
        (hidden.requires_grad_(), weight.requires_grad_()),
    )


@pytest.mark.parametrize("v", [1, 7, 1000, 5003])
@pytest.mark.parametrize("n", [1, 127, 256, 700])
def test_compiled_loss_and_gradients_equal_the_reference(n: int, v: int) -> None:
    inputs = _inputs(n, v, seed=n + v)
    assert_near(_both(inputs, "cpu"), _both(inputs, "reference"), **NEAR)


@pytest.mark.parametrize(("n", "v"), [(1, 50_021), (127, 50_021), (4096, 1000), (4096, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradients_at_real_sizes(n: int, v: int, dtype: torch.dtype) -> None:
    """Gradients of narrow types are rounded to them once, at the end; float32 sums over V round as well."""
    inputs = _inputs(n, v, seed=n + v, dtype=dtype)
    bound = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert_near(_both(inputs, "cpu"), _both(inputs, "reference"), relative=bound, floor=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_every_option_equals_the_reference(
    reduction: str, smoothing: float, weighted: bool, biased: bool
) -> None:
    inputs = _inputs(300, 50, seed=3)
    generator = torch.Generator().manual_seed(1)
    options: dict[str, object] = {
        "reduction": reduction,
        "label_smoothing": smoothing,
        "temperature": 0.6,
        "weight": torch.rand(300, generator=generator) if weighted else None,
        "bias": torch.randn(50, generator=generator) if biased else None,
    }
    upstream = torch.randn(300 if reduction == "none" else (), generator=generator)
    ours, exact = (_both(inputs, backend, upstream, **options) for backend in ("cpu", "reference"))
    assert_near(ours, exact, **NEAR)


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    hidden, weight, targets = _inputs(40, 30)
    for ours, exact in zip(
        _both([hidden * 1e4, weight, targets], "cpu"),
        _both([hidden * 1e4, weight, targets], "reference"),
        strict=True,
    ):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_nan_row_is_not_hidden() -> None:
    hidden, weight, targets = _inputs(5, 8)
    hidden[2, 0] = float("nan")
    losses = linear_cross_entropy(hidden, weight, targets, reduction="none")
    assert torch.isnan(losses).tolist() == [False, False, True, False, False]


def test_runs_are_equal_bit_for_bit() -> None:
    inputs = _inputs(700, 1000)
    first, again = _both(inputs, "cpu"), _both(inputs, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.usefixtures("_threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    inputs = _inputs(700, 1000, d=32)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(_both(inputs, "cpu", label_smoothing=0.1, bias=torch.ones(1000)))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_a_row_has_the_same_loss_and_gradient_in_any_batch() -> None:
    hidden, weight, targets = _inputs(200, 600)
    batch = _both([hidden, weight, targets], "cpu", torch.ones(200), reduction="none")
    for row in (0, 63, 64, 199):
        part = slice(row, row + 1)
        alone = _both([hidden[part], weight, targets[part]], "cpu", torch.ones(1), reduction="none")
        assert torch.equal(alone[0], batch[0][part])
        assert torch.equal(alone[1], batch[1][part])


def test_rows_without_weight_count_for_nothing() -> None:
    hidden, weight, targets = _inputs(100, 50)
    half = torch.arange(100) % 2
    ours = _both([hidden, weight, targets], "cpu", weight=half.float())
    kept = half.bool()
    alone = _both([hidden[kept], weight, targets[kept]], "cpu")
    torch.testing.assert_close(ours[0], alone[0])
    torch.testing.assert_close(ours[1][kept], alone[1])
    assert not ours[1][~kept].any()
    torch.testing.assert_close(ours[2], alone[2])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_weight_at_all_is_a_loss_of_zero(backend: str) -> None:
    found = _both(_inputs(10, 5), backend, weight=torch.zeros(10))
    assert not any(bool(x.any()) for x in found)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_a_catalog_of_one_item_has_no_loss_and_no_gradient(label_smoothing: float) -> None:
    loss, dh, dw = _both(_inputs(70, 1), "cpu", label_smoothing=label_smoothing)
    for x in (loss, dh, dw):
        assert float(x.abs().max()) < 1e-6


def test_backward_can_be_run_twice() -> None:
    hidden, weight, targets = _inputs(20, 30)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, targets)
    (first,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (again,) = torch.autograd.grad(3 * loss, hidden)
    torch.testing.assert_close(again, 3 * first)


def test_the_logits_never_exist_at_once(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CHUNK_LOGITS", 1 << 16)
    rows, items = 1000, 2000
    inputs = _inputs(rows, items)
    sizes.clear()
    _both(inputs, "cpu")
    assert max(sizes) <= 64 * items  # a chunk has 64 rows at least
    sizes.clear()
    linear_cross_entropy(*inputs)  # no gradients: not even a chunk is kept
    assert max(sizes) <= 16 * items


def test_the_registered_operations_pass_torch_checks() -> None:
    hidden, weight, targets = _inputs(6, 5, d=32)
    leaves = hidden.requires_grad_(), weight.requires_grad_(), torch.ones(5).requires_grad_()
    scale = torch.ones(6)
    torch.library.opcheck(cpu.summed_loss.operator, (*leaves, targets, scale, 0.1, 0.5, True))
    torch.library.opcheck(cpu.row_losses.operator, (*leaves, targets, scale, 0.1, 0.5))


def test_memory_layout_does_not_matter() -> None:
    hidden, weight, targets = _inputs(30, 20)
    strided = torch.stack((hidden, hidden), 2)[:, :, 0]
    turned = weight.T.contiguous().T
    assert not strided.is_contiguous()
    for ours, plain in zip(
        _both([strided, turned, targets], "cpu"), _both([hidden, weight, targets], "cpu"), strict=True
    ):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    hidden, weight, targets = _inputs(30, 20, dtype=dtype)
    loss = linear_cross_entropy(hidden, weight, targets)
    assert loss.dtype == dtype
    exact = F.cross_entropy(hidden.double() @ weight.double().T, targets)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-2, atol=1e-2)


def test_skipping_small_values_changes_the_gradient_by_no_more_than_them() -> None:
    hidden, weight, targets = _inputs(50, 400)
    off = _both([hidden * 3, weight, targets], "reference", label_smoothing=0.1)
    inputs = ((hidden * 3).requires_grad_(), weight.requires_grad_())
    loss = linear_cross_entropy(*inputs, targets, label_smoothing=0.1, skip_small=True, backend="reference")
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(off[0]), rel=1e-6)
    limit = torch.finfo(torch.float32).eps / 32
    shares = (inputs[0].detach() @ weight.detach().T).softmax(1)
    kept = shares.masked_fill(shares < limit, 0.0)
    assert 100 < int((kept == 0).sum()) < kept.numel()
    d_logits = kept - 0.1 / 400
    d_logits[torch.arange(50), targets] -= 0.9
    assert inputs[1].grad is not None
    torch.testing.assert_close(inputs[1].grad, d_logits.T @ inputs[0].detach() / 50, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="skip_small"):
        linear_cross_entropy(hidden, weight, targets, skip_small=True, backend="cpu")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_multiplies_in_its_type_and_returns_float32(backend: str) -> None:
    hidden, weight, targets = _inputs(30, 20)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden.bfloat16(), weight, targets, backend=backend)
        assert loss.dtype == torch.float32
        wide = linear_cross_entropy(hidden.double(), weight.double(), targets, backend="reference")
    assert wide.dtype == torch.float64
    narrow = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), targets, backend=backend)
    assert torch.equal(loss.to(narrow.dtype), narrow)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_rows_give_no_loss(backend: str) -> None:
    hidden, weight, targets = _inputs(0, 5)
    loss, dh, dw = _both([hidden, weight, targets], backend)
    assert float(loss) == 0
    assert dh.shape == (0, 16)
    assert not dw.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 9, 1])}, "targets holds 9"),
        ({"targets": torch.tensor([0, -1, 1])}, "targets holds -1"),
        ({"targets": torch.zeros(2, dtype=torch.int64)}, "targets is"),
        ({"item_weight": torch.zeros(5, 3)}, "item_weight has shape"),
        ({"item_weight": torch.zeros(5, 16).double()}, "item_weight is torch.float64"),
        ({"bias": torch.zeros(4)}, "bias has shape"),
        ({"weight": torch.zeros(4)}, "weight is torch.float32 of shape"),
        ({"weight": torch.zeros(3, requires_grad=True)}, "weight wants a gradient"),
        ({"hidden": torch.zeros(3, dtype=torch.int64)}, "hidden is"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"label_smoothing": 2.0}, "label_smoothing is 2.0"),
        ({"reduction": "max"}, "reduction is 'max'"),
        ({"backend": "gpu"}, "backend is 'gpu'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    hidden, weight, targets = _inputs(3, 5)
    arguments = {"hidden": hidden, "item_weight": weight, "targets": targets, **change}
    with pytest.raises(ArgumentError, match=message):
        linear_cross_entropy(**arguments)  # type: ignore[arg-type]
