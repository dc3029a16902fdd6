import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.cross_entropy import linear_cross_entropy


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write is NaN."""
    real = {name: getattr(torch, name) for name in ("empty", "empty_like")}
    for name, make in real.items():

        def filled(*args: object, make: object = make, **kwargs: object) -> Tensor:
            tensor: Tensor = make(*args, **kwargs)  # type: ignore[operator]
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(torch, name, filled)


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
    for ours, exact in zip(_both(inputs, "cpu"), _both(inputs, "reference"), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=2e-5, atol=2e-6)


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
    results = [_both(inputs, backend, upstream, **options) for backend in ("cpu", "reference")]
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=5e-5, atol=2e-5)


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


def test_no_rows_give_no_loss() -> None:
    hidden, weight, targets = _inputs(0, 5)
    loss, dh, dw = _both([hidden, weight, targets], "cpu")
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
