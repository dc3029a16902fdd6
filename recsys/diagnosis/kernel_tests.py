"""Every compiled kernel against its definition on a small batch, forward and backward: right on this machine?

An operation is tried with each backend of its own table that this machine has. The definition computes in
float64 where it is a matter of numbers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RecsysError
from recsys.kernels.shared.backends import BackendTable

Outputs = Sequence[Any]
Run = Callable[[str, torch.dtype, torch.device], Outputs]

EVENTS, LENGTHS, WIDTH, ITEMS = 45, (0, 1, 17, 27), 32, 70
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the definition's largest value; whole numbers must be equal."""


@dataclass(frozen=True, slots=True)
class KernelTest:
    """One operation tried on one backend.

    Attributes:
        operation: name of the kernel's folder.
        backend: what ran.
        passed: whether it gave what the definition gives.
        error: largest difference relative to the definition's largest value; None if it did not run.
        seconds: time taken, compilation included.
        message: what was raised, else empty.
    """

    operation: str
    backend: str
    passed: bool
    error: float | None
    seconds: float
    message: str = ""


def kernel_tests() -> Iterator[KernelTest]:
    """Try every operation on every backend that can run here."""
    for operation, (table, run) in _cases().items():
        backends = ["cpu"] if table is None else [b for b in table.names if b in _runnable()]
        for backend in backends:
            yield _try(operation, backend, run)
    from recsys.kernels.shared.vector.tiles import tiles_available

    if tiles_available():
        yield _try("linear", "cpu", _linear, tolerance=0.02)  # bfloat16 factors


def _runnable() -> tuple[str, ...]:
    return ("cpu", "triton") if torch.cuda.is_available() else ("cpu",)


def _try(operation: str, backend: str, run: Run, tolerance: float = TOLERANCE) -> KernelTest:
    began = time.perf_counter()
    try:
        device = torch.device("cuda" if backend == "triton" else "cpu")
        wanted = run("reference", torch.float64, torch.device("cpu"))
        found = run(backend, torch.float32, device)
        error = max(_difference(a, b) for a, b in zip(wanted, found, strict=True))
    except (RecsysError, RuntimeError, ImportError, OSError, ValueError, TypeError) as failed:
        message = f"{type(failed).__name__}: {failed}".splitlines()[0]
        return KernelTest(operation, backend, False, None, time.perf_counter() - began, message)
    return KernelTest(operation, backend, error <= tolerance, error, time.perf_counter() - began)


def _difference(wanted: Any, found: Any) -> float:
    one, other = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in (wanted, found))
    if one.shape != other.shape:
        return float("inf")
    if not np.issubdtype(one.dtype, np.floating):
        return 0.0 if np.array_equal(one, other) else float("inf")
    differ = one != other  # infinities are equal to themselves, NaN to nothing
    if not np.isfinite(one[differ]).all() or not np.isfinite(other[differ]).all():
        return float("inf")
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=1e-6))
    return float(np.abs(one[differ] - other[differ].astype(one.dtype)).max(initial=0.0)) / largest


class _Inputs:
    """Random numbers, the same at every call whatever their type and place."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._generator = torch.Generator().manual_seed(7)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """A leaf of numbers that float32 holds."""
        drawn = torch.randn(shape, generator=self._generator) * scale
        return drawn.to(self.device, self.dtype).requires_grad_()

    def whole(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=self._generator).to(self.device)

    def offsets(self) -> Tensor:
        ends = np.concatenate(([0], np.cumsum(LENGTHS))).astype(np.int32)
        return torch.from_numpy(ends).to(self.device)


def _with_gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and the gradients of a weighted sum of their elements."""
    total = torch.stack([(out * _ramp(out)).sum() for out in outputs]).sum()
    return [*outputs, *torch.autograd.grad(total, leaves)]


def _ramp(like: Tensor) -> Tensor:
    return torch.linspace(0.5, 1.5, like.numel(), dtype=like.dtype, device=like.device).view(like.shape)


def _attention(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.attention import jagged_attention

    x = _Inputs(dtype, device)
    q, k, v = (x.normal(EVENTS, 2, 16) for _ in range(3))
    out = jagged_attention(q, k, v, x.offsets(), causal=True, max_length=max(LENGTHS), backend=backend)
    return _with_gradients([out], (q, k, v))


def _bags(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.bags import bag_vectors

    x = _Inputs(dtype, device)
    table, rows = x.normal(9, WIDTH), x.whole(9, EVENTS)
    weights = x.normal(EVENTS).detach().float()
    return _with_gradients([bag_vectors(table, x.offsets(), rows, weights, backend=backend)], (table,))


def _clock(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.clock import clock_sums, cosine_coefficients

    x = _Inputs(dtype, device)
    values = x.normal(EVENTS, 8)
    times = torch.arange(EVENTS, device=device) * 3000
    coefficients = cosine_coefficients(3, 3).to(device, dtype).requires_grad_()
    rate = torch.tensor(0.2, dtype=dtype, device=device, requires_grad=True)
    out = clock_sums(
        values,
        times,
        times + 500,
        x.offsets(),
        coefficients=coefficients,
        rate=rate,
        max_length=max(LENGTHS),
        form="recurrent",
        backend=backend,
    )
    return _with_gradients([out], (values, coefficients, rate))


def _conv(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.conv import causal_conv

    x = _Inputs(dtype, device)
    leaves = x.normal(EVENTS, WIDTH), x.normal(WIDTH, 4), x.normal(WIDTH)
    out = causal_conv(*leaves, x.offsets(), backend=backend)
    assert isinstance(out, Tensor)
    return _with_gradients([out], leaves)


def _cross_entropy(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.cross_entropy import linear_cross_entropy

    x = _Inputs(dtype, device)
    leaves = x.normal(EVENTS, WIDTH), x.normal(ITEMS, WIDTH, scale=0.2)
    loss = linear_cross_entropy(*leaves, x.whole(ITEMS, EVENTS), label_smoothing=0.1, backend=backend)
    return _with_gradients([loss], leaves)


def _embedding(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.embedding import item_vectors

    x = _Inputs(dtype, device)
    table = x.normal(ITEMS, WIDTH)
    return _with_gradients([item_vectors(table, x.whole(ITEMS, EVENTS), backend=backend)], (table,))


def _lazy_adamw(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.lazy_adamw import update_rows

    x = _Inputs(dtype, device)
    weight, mean, gradient = x.normal(ITEMS, WIDTH), x.normal(ITEMS, WIDTH), x.normal(5, WIDTH)
    square = x.normal(ITEMS, WIDTH).detach().square()
    ids = torch.tensor([0, 3, 4, 40, ITEMS - 1], device=device)
    state = weight.detach().clone(), mean.detach().clone(), square
    update_rows(
        *state,
        ids,
        gradient.detach(),
        step=3,
        learning_rate=0.01,
        betas=(0.9, 0.999),
        weight_decay=0.1,
        backend=backend,
    )
    return state


def _linear(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from contextlib import nullcontext

    from recsys.kernels.linear import linear, narrow_products

    x = _Inputs(dtype, device)
    leaves = x.normal(EVENTS, 64), x.normal(32, 64), x.normal(32)
    with narrow_products() if backend == "cpu" else nullcontext():
        return _with_gradients([linear(*leaves)], leaves)


def _local_aggregation(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.local_aggregation import local_scores, reference

    x = _Inputs(torch.float32, device)
    queries, states = x.normal(3, WIDTH).detach(), x.normal(EVENTS, WIDTH).detach()
    distances = -torch.cdist(queries, states).square()
    near, ids = (t.numpy() for t in distances.topk(9))
    score = local_scores if backend == "cpu" else reference.local_scores
    return score(queries.numpy(), states.numpy(), x.whole(ITEMS, EVENTS).numpy(), ids, near)


def _pointwise(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.pointwise import activate, add_dropped, rotate_parts

    x = _Inputs(dtype, device)
    leaves = x.normal(EVENTS, 2 * WIDTH), x.normal(EVENTS, WIDTH), x.normal(EVENTS, 3, 2, 16)
    angles = x.normal(EVENTS, 8).detach()
    activated = [activate(leaves[0], "swiglu", backend=backend), activate(leaves[1], "gelu", backend=backend)]
    added = add_dropped(activated[0], leaves[1], backend=backend)
    turned = rotate_parts(leaves[2], angles.cos(), angles.sin(), 2, backend=backend)
    return _with_gradients([*activated, added, *turned], leaves)


def _ranking(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.ranking import rank_of_target, top_k

    x = _Inputs(dtype, device)
    # Whole numbers, whose scores both precisions hold: ties are many, and ids and ranks must be equal.
    hidden, items = (x.whole(5, n, WIDTH).to(dtype) - 2 for n in (EVENTS, ITEMS))
    ranks = rank_of_target(hidden, items, x.whole(ITEMS, EVENTS), backend=backend)
    best = top_k(hidden, items, 10, backend=backend)
    return ranks.kept, best.scores, best.ids


def _repeats(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.repeats import repeat_correction
    from recsys.kernels.repeats.layout import RepeatLayout

    x = _Inputs(dtype, device)
    lengths = np.array(LENGTHS, dtype=np.int64)
    sequences = np.repeat(np.arange(len(LENGTHS)), lengths)
    places = np.concatenate([np.arange(1, n + 1) for n in LENGTHS])
    items = x.whole(9, EVENTS).cpu().numpy()
    layout = RepeatLayout.of(items, lengths, np.ones(EVENTS, bool), sequences, places, np.roll(items, -1))
    hidden, table, bias = x.normal(EVENTS, WIDTH), x.normal(ITEMS, WIDTH, scale=0.2), x.normal(5)
    totals = torch.logsumexp(hidden @ table.T, 1)
    out = repeat_correction(
        hidden,
        table[layout.items.to(device)],
        totals,
        bias,
        layout.to(device),
        sees_later=False,
        n_items=ITEMS,
        backend=backend,
    )
    return _with_gradients([out], (hidden, table, bias))


def _rescoring(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    """The end of an exact search: an index answers, the definition sorts all scores."""
    from recsys.retrieval.item_index import ItemIndex

    x = _Inputs(torch.float32, torch.device("cpu"))
    vectors, queries = x.normal(ITEMS, WIDTH).detach().numpy(), x.normal(4, WIDTH).detach().numpy()
    if backend == "reference":
        scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
        ids = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return np.take_along_axis(scores, ids, 1), ids
    found = ItemIndex.build(vectors, kind="exact", fingerprint="self-test").search(queries, 10)
    return found.scores, found.ids


def _sampled_loss(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.sampled_loss import gbce_loss, sampled_softmax_loss

    x = _Inputs(dtype, device)
    leaves = x.normal(EVENTS, WIDTH), x.normal(ITEMS, WIDTH, scale=0.2)
    targets, own, shared = x.whole(ITEMS, EVENTS), x.whole(ITEMS, EVENTS, 4), x.whole(ITEMS, 16)
    losses = [
        gbce_loss(*leaves, targets, own, backend=backend),
        sampled_softmax_loss(*leaves, targets, shared, backend=backend),
    ]
    return _with_gradients(losses, leaves)


def _sampling(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.sampling import draw_negatives, draw_shared, popularity_sampler

    x = _Inputs(dtype, device)
    sampler = popularity_sampler(np.arange(1, ITEMS + 1), 0.75)
    sampler = sampler.to(device) if device.type == "cuda" else sampler
    return (
        draw_negatives(sampler, x.whole(ITEMS, EVENTS), 5, 11, backend=backend),
        draw_shared(sampler, 33, 11, device=device, backend=backend),
    )


def _scan(backend: str, dtype: torch.dtype, device: torch.device) -> Outputs:
    from recsys.kernels.scan import selective_scan

    x = _Inputs(dtype, device)
    states = 8
    u, delta, z = x.normal(EVENTS, WIDTH), x.normal(EVENTS, WIDTH), x.normal(EVENTS, WIDTH)
    decay = (-x.normal(WIDTH, states).detach().abs() - 0.1).requires_grad_()
    b, c, d = x.normal(EVENTS, states), x.normal(EVENTS, states), x.normal(WIDTH)
    out = selective_scan(u, delta, decay, b, c, d, z, offsets=x.offsets(), backend=backend)
    assert isinstance(out, Tensor)
    return _with_gradients([out], (u, delta, decay, b, c, d, z))


def _cases() -> dict[str, tuple[BackendTable[Any] | None, Run]]:
    """Every operation's table of backends and its case; None for those of the CPU alone, without a table."""
    from recsys.kernels import (
        attention,
        bags,
        clock,
        conv,
        cross_entropy,
        embedding,
        lazy_adamw,
        pointwise,
        ranking,
        repeats,
        sampled_loss,
        sampling,
        scan,
    )

    return {
        "attention": (attention.BACKENDS, _attention),
        "bags": (bags.BACKENDS, _bags),
        "clock": (clock.BACKENDS, _clock),
        "conv": (conv.BACKENDS, _conv),
        "cross_entropy": (cross_entropy.BACKENDS, _cross_entropy),
        "embedding": (embedding.BACKENDS, _embedding),
        "lazy_adamw": (lazy_adamw.BACKENDS, _lazy_adamw),
        "local_aggregation": (None, _local_aggregation),
        "pointwise": (pointwise.BACKENDS, _pointwise),
        "ranking": (ranking.BACKENDS, _ranking),
        "repeats": (repeats.BACKENDS, _repeats),
        "rescoring": (None, _rescoring),
        "sampled_loss": (sampled_loss.BACKENDS, _sampled_loss),
        "sampling": (sampling.BACKENDS, _sampling),
        "scan": (scan.BACKENDS, _scan),
    }
