import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.kernels.embedding import HashedTable
from recsys.kernels.sampled_loss import bce_loss, bpr_loss, gbce_beta, gbce_loss, sampled_softmax_loss
from recsys.kernels.sampling import draw_negatives, draw_shared, log_expected_count, uniform_sampler
from tests.kernels.tensors import assert_near

NEAR = {"relative": 2e-6, "floor": 1e-7}

LOSSES: dict[str, Any] = {
    "softmax": sampled_softmax_loss,
    "bce": bce_loss,
    "gbce": gbce_loss,
    "bpr": bpr_loss,
}


def _inputs(n: int = 30, k: int = 7, v: int = 11, d: int = 20, *, shared: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + k)
    hidden = torch.randn(n, d, generator=generator, dtype=torch.float64)
    table = 0.5 * torch.randn(v, d, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, v, (n,), generator=generator)
    negatives = torch.randint(0, v, (k,) if shared else (n, k), generator=generator)
    return [hidden, table, targets, negatives]


def _scores(inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of targets and negatives, and which negatives are the row's target, written out plainly."""
    hidden, table, targets, negatives = inputs
    scores = hidden @ table.T
    ids = negatives.expand(len(hidden), -1)
    return scores.gather(1, targets[:, None])[:, 0], scores.gather(1, ids), ids == targets[:, None]


def _run(
    name: str, inputs: list[Tensor], backend: str, hashes: int = 0, **options: Any
) -> tuple[Tensor, ...]:
    dtype = torch.float64 if backend == "reference" else torch.float32
    hidden, table = (x.to(dtype).detach().requires_grad_() for x in inputs[:2])
    items = HashedTable(table, 11, hashes) if hashes else table
    upstream = options.pop("upstream", None)
    floats = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in options.items()}
    loss = LOSSES[name](hidden, items, *inputs[2:], backend=backend, **floats)
    gradients = torch.autograd.grad(loss, (hidden, table), None if upstream is None else upstream.to(dtype))
    return loss.detach(), gradients[0], gradients[1].to_dense()


@pytest.mark.parametrize("shared", [False, True])
def test_sampled_softmax_is_its_formula(shared: bool) -> None:
    inputs = _inputs(shared=shared)
    positive, negative, hit = _scores(inputs)
    log_q = torch.randn(inputs[3].shape, dtype=torch.float64)
    own_q = torch.randn(30, dtype=torch.float64)
    for temperature in (1.0, 0.4):
        exact = []
        for i in range(30):
            own = float(positive[i]) / temperature - float(own_q[i])
            total = math.exp(own)
            for j in range(7):
                if not hit[i, j]:
                    lq = float(log_q[j] if shared else log_q[i, j])
                    total += math.exp(float(negative[i, j]) / temperature - lq)
            exact.append(math.log(total) - own)
        found = sampled_softmax_loss(
            *inputs, log_q=log_q, target_log_q=own_q, temperature=temperature, reduction="none"
        )
        torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64))


@pytest.mark.parametrize("shared", [False, True])
def test_bce_is_its_formula(shared: bool) -> None:
    inputs = _inputs(shared=shared)
    positive, negative, hit = _scores(inputs)
    log_one_minus = torch.log(1 - torch.sigmoid(negative)).masked_fill(hit, 0)
    exact = -(torch.log(torch.sigmoid(positive)) + log_one_minus.sum(1)) / 8
    torch.testing.assert_close(bce_loss(*inputs, reduction="none"), exact)


def test_bce_with_one_negative_is_half_of_sasrecs_sum() -> None:
    inputs = _inputs(k=1, v=1000)
    positive, negative, _ = _scores(inputs)
    logits = torch.cat((positive, negative[:, 0]))
    labels = torch.cat((torch.ones(30), torch.zeros(30))).double()
    sasrec = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").view(2, 30).sum(0)
    torch.testing.assert_close(bce_loss(*inputs, reduction="none"), sasrec / 2)


@pytest.mark.parametrize("t", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("shared", [False, True])
def test_gbce_is_its_formula(t: float, shared: bool) -> None:
    inputs = _inputs(shared=shared)
    positive, negative, hit = _scores(inputs)
    alpha = 7 / 10
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    log_one_minus = torch.log(1 - torch.sigmoid(negative)).masked_fill(hit, 0)
    exact = -(torch.log(torch.sigmoid(positive) ** beta) + log_one_minus.sum(1)) / 8
    torch.testing.assert_close(gbce_loss(*inputs, t=t, reduction="none"), exact)
    # The authors' way: transform the positive score, then plain BCE, in float64.
    turned = torch.log(1 / (torch.sigmoid(positive) ** -beta - 1))
    theirs = -(torch.log(torch.sigmoid(turned)) + log_one_minus.sum(1)) / 8
    torch.testing.assert_close(gbce_loss(*inputs, t=t, reduction="none"), theirs)


def test_gbce_beta_at_its_ends() -> None:
    assert gbce_beta(256, 3417, 0.0) == pytest.approx(1)
    assert gbce_beta(256, 3417, 1.0) == pytest.approx(256 / 3416)
    assert gbce_beta(5000, 3417, 0.5) == 1  # every item is sampled: nothing to calibrate
    hidden, table, targets, negatives = _inputs()
    more_rows = torch.cat((table, table[:1]))
    one, other = (gbce_loss(hidden, items, targets, negatives, n_items=11) for items in (table, more_rows))
    assert torch.equal(one, other)


def test_the_hardest_positives_of_gbce_still_learn() -> None:
    # Where gSASRec's float64 transform is clamped and has no gradient.
    hidden, table = torch.tensor([[-30.0]]), torch.tensor([[1.0], [0.0]], requires_grad=True)
    loss = gbce_loss(hidden, table, torch.tensor([0]), torch.tensor([[1]]), n_items=101, t=0.75)
    (gradient,) = torch.autograd.grad(loss, table)
    # Gradient of the score: -beta / (K + 1); of the item: times hidden.
    assert float(gradient[0]) == pytest.approx(30 * gbce_beta(1, 101, 0.75) / 2, rel=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_bpr_is_its_formula(shared: bool) -> None:
    inputs = _inputs(shared=shared)
    positive, negative, hit = _scores(inputs)
    exact = -torch.log(torch.sigmoid(positive[:, None] - negative)).masked_fill(hit, 0).sum(1) / 7
    torch.testing.assert_close(bpr_loss(*inputs, reduction="none"), exact)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
def test_the_references_have_right_gradients(name: str, shared: bool) -> None:
    hidden, table, targets, negatives = _inputs(4, 3, 5, 3, shared=shared)
    options = {"label_smoothing": 0.2} if name == "softmax" else {}
    assert torch.autograd.gradcheck(
        lambda h, w: LOSSES[name](h, w, targets, negatives, reduction="none", temperature=0.7, **options),
        (hidden.requires_grad_(), table.requires_grad_()),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hashes", [0, 3])
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 8), (30, 7, 20), (70, 16, 64), (33, 50, 50)])
def test_compiled_losses_equal_the_references(
    name: str, shared: bool, hashes: int, n: int, k: int, d: int
) -> None:
    inputs = _inputs(n, k, 11, d, shared=shared)
    for sparse in (False, True):
        ours = _run(name, inputs, "cpu", hashes, sparse=sparse)
        assert_near(ours, _run(name, inputs, "reference", hashes), **NEAR)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_option_equals_the_reference(name: str, shared: bool, reduction: str, weighted: bool) -> None:
    inputs = _inputs(shared=shared)
    generator = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {
        "reduction": reduction,
        "temperature": 0.6,
        "weight": torch.rand(30, generator=generator) if weighted else None,
        "upstream": torch.randn(30 if reduction == "none" else (), generator=generator),
    }
    if name == "softmax":
        options["label_smoothing"] = 0.2
        options["log_q"] = torch.randn(inputs[3].shape, generator=generator)
        options["target_log_q"] = torch.randn(30, generator=generator)
    assert_near(_run(name, inputs, "cpu", **options), _run(name, inputs, "reference", **options), **NEAR)


def test_one_correction_serves_all_rows() -> None:
    inputs = _inputs()
    log_q = torch.randn(7)
    one, other = (_run("softmax", inputs, "cpu", log_q=x) for x in (log_q, log_q.expand(30, 7)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert_near(one, _run("softmax", inputs, "reference", log_q=log_q), **NEAR)


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_of_rows_join(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.kernels.sampled_loss import cpu

    monkeypatch.setattr(cpu, "BLOCK_SCORES", 16)
    inputs = _inputs(200, 9, 11, 16, shared=shared)
    assert_near(_run("softmax", inputs, "cpu"), _run("softmax", inputs, "reference"), **NEAR)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
def test_a_row_whose_negatives_all_hit_has_finite_gradients(name: str, shared: bool) -> None:
    inputs = _inputs(5, 3, shared=shared)
    inputs[2] = torch.full((5,), 4)
    inputs[3] = torch.full_like(inputs[3], 4)
    options: dict[str, Any] = {"label_smoothing": 0.1} if name == "softmax" else {}
    ours, exact = (_run(name, inputs, b, **options) for b in ("cpu", "reference"))
    assert_near(ours, exact, **NEAR)
    assert all(torch.isfinite(x).all() for x in ours)
    if name == "softmax":
        assert float(ours[0]) == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
def test_extreme_scores_are_finite_and_nan_is_not_hidden(name: str, shared: bool) -> None:
    inputs = _inputs(shared=shared)
    large = [inputs[0] * 1e3, *inputs[1:]]
    ours, exact = _run(name, large, "cpu"), _run(name, large, "reference")
    for a, b in zip(ours, exact, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    inputs[0][2, 0] = math.nan
    losses = LOSSES[name](*(x.float() for x in inputs[:2]), *inputs[2:], reduction="none")
    assert torch.isnan(losses).nonzero().tolist() == [[2]]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", LOSSES)
def test_threads_change_no_bit_of_rows_with_their_own_negatives(name: str) -> None:
    inputs = _inputs(3000, 40, 11, 64)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(_run(name, inputs, "cpu", sparse=True))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_row_has_the_same_loss_and_gradient_in_any_batch() -> None:
    hidden, table, targets, negatives = _inputs(20)
    ones = torch.ones(20)
    whole = _run("softmax", [hidden, table, targets, negatives], "cpu", reduction="none", upstream=ones)
    for row in (0, 7, 19):
        part = [hidden[row : row + 1], table, targets[row : row + 1], negatives[row : row + 1]]
        single = _run("softmax", part, "cpu", reduction="none", upstream=ones[:1])
        assert torch.equal(single[0][0], whole[0][row])
        assert torch.equal(single[1][0], whole[1][row])


@pytest.mark.parametrize("shared", [False, True])
def test_logq_makes_the_partition_function_unbiased(shared: bool) -> None:
    # Uniform negatives, many draws: the sampled loss comes near the full one, and without logQ does not.
    hidden, table, targets, _ = _inputs(8, 3, 40)
    sampler, k = uniform_sampler(40), 40_000
    full = linear_cross_entropy(hidden, table, targets)
    if shared:
        negatives = draw_shared(sampler, k, 3)
        log_q = log_expected_count(sampler, negatives, k)
    else:
        negatives = draw_negatives(sampler, targets, k, 3)
        log_q = log_expected_count(sampler, negatives, k, targets)
    corrected = sampled_softmax_loss(hidden, table, targets, negatives, log_q=log_q)
    plain = sampled_softmax_loss(hidden, table, targets, negatives)
    # One relative standard error of the estimate of Z is about 1 / sqrt(k) = 0.5% here.
    assert float(corrected) == pytest.approx(float(full), abs=0.03)
    assert abs(float(plain) - float(full)) > 1


def test_every_other_item_once_is_the_full_softmax() -> None:
    hidden, table, targets, _ = _inputs(6, 3, 9)
    others = torch.stack([torch.tensor([i for i in range(9) if i != t]) for t in targets.tolist()])
    full = linear_cross_entropy(hidden, table, targets)
    torch.testing.assert_close(sampled_softmax_loss(hidden, table, targets, others), full)
    everything = torch.arange(9)  # shared: each row leaves its own target out
    torch.testing.assert_close(sampled_softmax_loss(hidden, table, targets, everything), full)


def test_label_smoothing_spreads_the_share_over_the_negatives() -> None:
    inputs = _inputs(v=1000)
    positive, negative, hit = _scores(inputs)
    assert not hit.any()
    plain = sampled_softmax_loss(*inputs, reduction="none")
    smooth = sampled_softmax_loss(*inputs, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(smooth, plain + 0.3 * (positive - negative.mean(1)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_rows_and_no_weight_are_no_loss(name: str, shared: bool, backend: str) -> None:
    nothing = _inputs(0, 3, shared=shared)
    assert not any(bool(x.any()) for x in _run(name, nothing, backend))
    inputs = _inputs(shared=shared)
    assert not any(bool(x.any()) for x in _run(name, inputs, backend, weight=torch.zeros(30)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sparse", [False, True])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype, sparse: bool) -> None:
    inputs = _inputs()
    hidden, table = (x.to(dtype).requires_grad_() for x in inputs[:2])
    loss = sampled_softmax_loss(hidden, table, *inputs[2:], sparse=sparse)
    assert loss.dtype == dtype
    gradients = torch.autograd.grad(loss, (hidden, table))
    exact = _run("softmax", [hidden.detach(), table.detach(), *inputs[2:]], "reference")
    for a, b in zip((loss, *gradients), exact, strict=True):
        torch.testing.assert_close(a.detach().to_dense().double(), b, rtol=2e-2, atol=2e-2)


def test_backward_can_be_run_twice() -> None:
    inputs = _inputs()
    hidden, table = (x.float().requires_grad_() for x in inputs[:2])
    loss = gbce_loss(hidden, table, *inputs[2:], sparse=True)
    first = torch.autograd.grad(loss, (hidden, table), retain_graph=True)
    again = torch.autograd.grad(3 * loss, (hidden, table))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(3 * a.to_dense(), b.to_dense())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3, dtype=torch.int64)}, "hidden is"),
        ({"items": torch.zeros(5, 3)}, "items is torch.float32 of shape"),
        ({"items": torch.zeros(5, 8).double()}, "items is torch.float64"),
        ({"targets": torch.zeros(2, dtype=torch.int64)}, "targets is"),
        ({"targets": torch.tensor([0, 5, 1])}, "targets holds 5"),
        ({"negatives": torch.tensor([[0], [-1], [1]])}, "negatives holds -1"),
        ({"negatives": torch.zeros(2, 4, dtype=torch.int64)}, "negatives is"),
        ({"negatives": torch.zeros(3, 0, dtype=torch.int64)}, "K >= 1"),
        ({"log_q": torch.zeros(3)}, "log_q has shape"),
        ({"log_q": torch.zeros(2, requires_grad=True)}, "log_q wants a gradient"),
        ({"weight": torch.zeros(4)}, "weight is torch.float32 of shape"),
        ({"target_log_q": torch.zeros(4)}, "target_log_q is torch.float32 of shape"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"label_smoothing": 2.0}, "label_smoothing is 2.0"),
        ({"reduction": "max"}, "reduction is 'max'"),
        ({"backend": "gpu"}, "backend is 'gpu'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {
        "hidden": torch.zeros(3, 8),
        "items": torch.zeros(5, 8),
        "targets": torch.zeros(3, dtype=torch.int64),
        "negatives": torch.ones(3, 2, dtype=torch.int64),
        **change,
    }
    with pytest.raises(ArgumentError, match=message):
        sampled_softmax_loss(**arguments)
    with pytest.raises(ArgumentError, match="t is 1.5"):
        gbce_loss(torch.zeros(1, 8), torch.zeros(5, 8), torch.tensor([0]), torch.tensor([[1]]), t=1.5)
