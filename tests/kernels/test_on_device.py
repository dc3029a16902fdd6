"""Every operation at real sizes on a GPU: true, repeatable, without waits or new compilations."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.kernels.attention import AttentionBias, jagged_attention
from recsys.kernels.attention.schedule import AttentionSchedule
from recsys.kernels.clock import clock_sums, cosine_coefficients
from recsys.kernels.conv import causal_conv
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.kernels.embedding import item_vectors
from recsys.kernels.ranking import rank_of_target, top_k
from recsys.kernels.repeats import Occurrences, RepeatLayout, occurrence_correction, repeat_correction
from recsys.kernels.repeats.occurrences import CLOCK
from recsys.kernels.sampled_loss import gbce_loss, sampled_softmax_loss
from recsys.kernels.sampling import draw_negatives, draw_shared, popularity_sampler, uniform_sampler
from recsys.kernels.scan import ScanSchedule, selective_scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = torch.device("cuda")
EVENTS = 20_000
LONGEST = 1_500
ITEMS = 5_000

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Sequences of many lengths, and the work lists that spare the kernels a wait."""

    lengths: np.ndarray[Any, np.dtype[np.int64]]
    offsets: Tensor
    attention: AttentionSchedule
    scan: ScanSchedule
    repeats: RepeatLayout

    @classmethod
    def of(cls, lengths: Any) -> "Batch":
        sizes = np.asarray(lengths, dtype=np.int64)
        offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)).to(DEVICE)
        attention = AttentionSchedule.from_lengths(sizes).to(DEVICE)
        return cls(sizes, offsets, attention, ScanSchedule.from_lengths(sizes, DEVICE), _layout(sizes))

    @classmethod
    def random(cls, seed: int, events: int = EVENTS) -> "Batch":
        """Empty, single, short, tile-edge and long sequences in random order."""
        rng = np.random.default_rng(seed)
        parts = [[0, 1, 2, 3, 0, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, LONGEST]]
        while sum(map(sum, parts)) < events:
            parts.append([int(n) for n in rng.geometric(1 / rng.choice([5, 40, 300]), 10).clip(0, LONGEST)])
        return cls.of(rng.permutation(np.concatenate(parts)))

    @property
    def events(self) -> int:
        return int(self.lengths.sum())


def _layout(sizes: np.ndarray[Any, np.dtype[np.int64]]) -> RepeatLayout:
    """Next-item rows behind every event; a few items come again and again."""
    n = int(sizes.sum())
    sequence = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    items, visible = np.arange(n) * 7919 % 97, np.arange(n) % 11 > 0
    plain = RepeatLayout.of(items, sizes, visible, sequence, place + 1, np.roll(items, -1))
    times = torch.arange(n) * 1_777
    own = Occurrences.of(items, sizes, visible, times, times + 600)
    return replace(plain, occurrences=own).to(DEVICE)


@dataclass(frozen=True)
class Operation:
    """A differentiable operation: what it takes, and a call that gives one tensor."""

    name: str
    make: Callable[[Batch, torch.dtype], Leaves]
    call: Callable[[Leaves, Batch, str | None], Tensor]
    jagged: tuple[str, ...] = ()
    """Leaves with a row for each event, as the result has."""


def _draw(seed: int, *shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).to(DEVICE, dtype)


def _attention_leaves(heads: int, size: int, biased: bool) -> Callable[[Batch, torch.dtype], Leaves]:
    def make(batch: Batch, dtype: torch.dtype) -> Leaves:
        names = ("q", "k", "v")
        leaves = {n: _draw(i, batch.events, heads, size, dtype=dtype) for i, n in enumerate(names)}
        if biased:
            leaves["time_table"] = _draw(3, heads, 64, dtype=torch.float32)
            leaves["position_table"] = _draw(4, heads, 50, dtype=torch.float32)
        return leaves

    return make


def _attention(causal: bool) -> Callable[[Leaves, Batch, str | None], Tensor]:
    def call(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
        bias = None
        if "time_table" in leaves:
            times = torch.arange(batch.events, device=DEVICE) * 977
            bias = AttentionBias(leaves["time_table"], times, leaves["position_table"])
        return jagged_attention(
            leaves["q"],
            leaves["k"],
            leaves["v"],
            batch.offsets,
            causal=causal,
            max_length=LONGEST,
            bias=bias,
            schedule=batch.attention,
            backend=backend,
        )

    return call


def _scan_leaves(batch: Batch, dtype: torch.dtype) -> Leaves:
    channels, states = 128, 16
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "u": _draw(0, batch.events, channels, dtype=dtype),
        "delta": _draw(1, batch.events, channels, dtype=dtype),
        "A": -_draw(2, channels, states, dtype=wide).abs() - 0.1,
        "B": _draw(3, batch.events, states, dtype=dtype),
        "C": _draw(4, batch.events, states, dtype=dtype),
        "D": _draw(5, channels, dtype=wide),
        "z": _draw(6, batch.events, channels, dtype=dtype),
        "delta_bias": _draw(7, channels, dtype=wide) - 4,
    }


def _scan(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    y = selective_scan(**leaves, offsets=batch.offsets, schedule=batch.scan, backend=backend)  # type: ignore[arg-type]
    assert isinstance(y, Tensor)
    return y


def _conv_leaves(batch: Batch, dtype: torch.dtype) -> Leaves:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "x": _draw(0, batch.events, 256, dtype=dtype),
        "weight": _draw(1, 256, 4, dtype=wide),
        "bias": _draw(2, 256, dtype=wide),
    }


def _conv(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    y = causal_conv(leaves["x"], leaves["weight"], leaves["bias"], batch.offsets, backend=backend)
    assert isinstance(y, Tensor)
    return y


def _loss_leaves(batch: Batch, dtype: torch.dtype) -> Leaves:
    return {
        "hidden": _draw(0, batch.events, 64, dtype=dtype),
        "item_weight": _draw(1, ITEMS, 64, dtype=dtype, scale=0.2),
    }


def _loss(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    targets = torch.arange(batch.events, device=DEVICE) * 7919 % ITEMS
    return linear_cross_entropy(
        leaves["hidden"], leaves["item_weight"], targets, reduction="none", backend=backend
    )


def _table(dtype: torch.dtype) -> Leaves:
    return {"item_weight": _draw(1, ITEMS, 64, dtype=dtype, scale=0.2)}


def _own_negatives(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    targets = torch.arange(batch.events, device=DEVICE) * 7919 % ITEMS
    negatives = draw_negatives(uniform_sampler(ITEMS), targets, 40, 1)
    return gbce_loss(
        leaves["hidden"], leaves["item_weight"], targets, negatives, reduction="none", backend=backend
    )


def _shared_negatives(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    targets = torch.arange(batch.events, device=DEVICE) * 7919 % ITEMS
    negatives = draw_shared(uniform_sampler(ITEMS), 512, 1, device=DEVICE)
    return sampled_softmax_loss(
        leaves["hidden"], leaves["item_weight"], targets, negatives, reduction="none", backend=backend
    )


def _look_up(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    # Half of the events have one item.
    ids = torch.arange(batch.events, device=DEVICE)
    ids = torch.where(ids % 2 == 0, 7, ids * 7919 % ITEMS)
    return item_vectors(leaves["item_weight"], ids, backend=backend)


def _clock_leaves(batch: Batch, dtype: torch.dtype) -> Leaves:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "values": _draw(0, batch.events, 64, dtype=dtype),
        "coefficients": torch.as_tensor(cosine_coefficients(7)).to(DEVICE, wide),
        "rate": torch.tensor(0.3, device=DEVICE, dtype=wide),
    }


def _clock(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
    times = torch.arange(batch.events, device=DEVICE) * 1_777
    return clock_sums(
        leaves["values"],
        times,
        times + 600,
        batch.offsets,
        coefficients=leaves["coefficients"],
        rate=leaves["rate"],
        max_length=LONGEST,
        backend=backend,
    )


def _repeats_leaves(entries: int) -> Callable[[Batch, torch.dtype], Leaves]:
    def make(batch: Batch, dtype: torch.dtype) -> Leaves:
        return {
            "hidden": _draw(0, batch.events, 64, dtype=dtype),
            "keys": _draw(1, batch.events, 64, dtype=dtype, scale=0.2),
            "biases": _draw(2, entries, dtype=dtype, scale=0.4),
        }

    return make


def _repeats(correction: Callable[..., Tensor]) -> Callable[[Leaves, Batch, str | None], Tensor]:
    def call(leaves: Leaves, batch: Batch, backend: str | None) -> Tensor:
        totals = torch.full_like(leaves["hidden"][:, 0], 9.0)
        return correction(
            leaves["hidden"],
            leaves["keys"],
            totals,
            leaves["biases"],
            batch.repeats,
            sees_later=False,
            n_items=ITEMS,
            label_smoothing=0.1,
            temperature=0.8,
            backend=backend,
        )

    return call


OPERATIONS = [
    Operation("attention-causal", _attention_leaves(2, 32, False), _attention(True), ("q", "k", "v")),
    Operation("attention-both-ways", _attention_leaves(2, 64, False), _attention(False), ("q", "k", "v")),
    Operation("attention-biased", _attention_leaves(2, 32, True), _attention(True), ("q", "k", "v")),
    Operation("scan", _scan_leaves, _scan, ("u", "delta", "B", "C", "z")),
    Operation("conv", _conv_leaves, _conv, ("x",)),
    Operation("cross-entropy", _loss_leaves, _loss, ("hidden",)),
    Operation("own-negatives", _loss_leaves, _own_negatives, ("hidden",)),
    Operation("shared-negatives", _loss_leaves, _shared_negatives, ("hidden",)),
    Operation("look-up", lambda batch, dtype: _table(dtype), _look_up),
    Operation("clock", _clock_leaves, _clock, ("values",)),
    Operation("repeats", _repeats_leaves(8), _repeats(repeat_correction)),
    Operation("occurrences", _repeats_leaves(8 + CLOCK), _repeats(occurrence_correction)),
]
NUMBERED = ("cross-entropy", "own-negatives", "shared-negatives", "clock", "attention-biased")
"""Those whose targets or times here are numbered by the row of the batch."""

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=OPERATIONS, ids=lambda operation: operation.name)
def operation(request: pytest.FixtureRequest) -> Operation:
    return request.param  # type: ignore[no-any-return]


def _upstream(result: Tensor) -> Tensor:
    return _draw(99, *result.shape, dtype=torch.float64).to(result.dtype)


def _run(operation: Operation, leaves: Leaves, batch: Batch, backend: str | None = None) -> Leaves:
    """The result and the gradient of every leaf."""
    taken = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
    result = operation.call(taken, batch, backend)
    gradients = torch.autograd.grad(result, list(taken.values()), _upstream(result))
    return {"result": result.detach(), **dict(zip(taken, gradients, strict=True))}


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_as_true_as_the_definition_in_the_same_type(operation: Operation, dtype: torch.dtype) -> None:
    batch = Batch.random(0)
    leaves = operation.make(batch, dtype)
    ours = _run(operation, leaves, batch)
    same = _run(operation, leaves, batch, "reference")
    exact = _run(operation, {name: x.double() for name, x in leaves.items()}, batch, "reference")
    for name, wanted in exact.items():
        assert ours[name].dtype == same[name].dtype, name
        assert not ours[name].isnan().any(), name
        # A tenth beside: two roundings of the same sum to half precision differ by chance.
        assert _error(ours[name], wanted) <= 1.1 * _error(same[name], wanted) + 1e-5, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_20_runs_give_the_same_bits(operation: Operation, dtype: torch.dtype) -> None:
    batch = Batch.random(1)
    leaves = operation.make(batch, dtype)
    first = _run(operation, leaves, batch)
    for _ in range(20):
        for name, value in _run(operation, leaves, batch).items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_some_sequences_alone_have_the_bits_they_have_in_the_batch(
    operation: Operation, dtype: torch.dtype
) -> None:
    whole = Batch.random(2)
    leaves = operation.make(whole, dtype)
    result = operation.call(leaves, whole, None)
    chosen = np.random.default_rng(3).permutation(len(whole.lengths))[:60]
    starts = np.cumsum(whole.lengths) - whole.lengths
    rows = np.concatenate([np.arange(starts[i], starts[i] + whole.lengths[i]) for i in chosen])
    kept = torch.from_numpy(rows).to(DEVICE)
    if not operation.jagged or operation.name in NUMBERED:
        pytest.skip("its targets and times here are numbered by row of the batch")
    part = Batch.of(whole.lengths[chosen])
    fewer = {name: x[kept] if name in operation.jagged else x for name, x in leaves.items()}
    assert torch.equal(operation.call(fewer, part, None), result[kept])


@contextmanager
def _no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_forward_and_backward_never_wait_for_the_device(operation: Operation) -> None:
    batch = Batch.random(4)
    leaves = {name: x.requires_grad_() for name, x in operation.make(batch, torch.bfloat16).items()}
    upstream = _upstream(operation.call(leaves, batch, None))
    torch.autograd.grad(operation.call(leaves, batch, None), list(leaves.values()), upstream)
    with _no_waiting():
        result = operation.call(leaves, batch, None)
        torch.autograd.grad(result, list(leaves.values()), upstream)


def _compiled() -> int:
    """Variants of all Triton kernels that this process has compiled or loaded."""
    from triton.runtime.jit import JITFunction

    kernels = (thing for thing in gc.get_objects() if type(thing) is JITFunction)
    return sum(len(caches[0]) for kernel in kernels for caches in kernel.device_caches.values())


def test_new_batches_compile_nothing(operation: Operation) -> None:
    # A batch of few events, and one without a long sequence, take other variants of some kernels.
    for batch in (Batch.random(5), Batch.random(6), Batch.of([3, 1]), Batch.of([40] * 400)):
        _run(operation, operation.make(batch, torch.bfloat16), batch)
    before = _compiled()
    assert before > 0
    rng = np.random.default_rng(7)
    for _ in range(50):
        lengths = rng.geometric(1 / rng.choice([3, 9, 60, 400]), rng.integers(1, 200)).clip(0, LONGEST)
        batch = Batch.of(lengths)
        _run(operation, operation.make(batch, torch.bfloat16), batch)
    assert _compiled() == before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ranks_and_best_items_are_those_of_all_scores(dtype: torch.dtype) -> None:
    hidden, items = _draw(0, 512, 64, dtype=dtype), _draw(1, 20_000, 64, dtype=dtype)
    targets = torch.arange(512, device=DEVICE) * 31
    ours = rank_of_target(hidden, items, targets).kept
    scores = hidden.double() @ items.double().T
    own = scores.gather(1, targets[:, None])
    # A rank may differ only by competitors whose exact score is within rounding of the target's.
    slack = 1e-4 * scores.abs().amax(1, keepdim=True)
    low = 1 + (scores > own + slack).sum(1)
    high = (scores >= own - slack).sum(1)
    assert ((ours >= low) & (ours <= high)).all()
    best = top_k(hidden, items, 100)
    exact = scores.topk(100).values
    assert (scores.gather(1, best.ids) >= exact[:, -1:] - slack).all()
    assert (best.scores[:, :-1] >= best.scores[:, 1:]).all()
    assert all(len(set(row)) == 100 for row in best.ids.tolist())
    again = top_k(hidden, items, 100)
    assert torch.equal(best.ids, again.ids)
    assert torch.equal(best.scores, again.scores)


def test_draws_are_those_of_the_definition() -> None:
    targets = torch.arange(EVENTS, device=DEVICE) % ITEMS
    counts = torch.arange(ITEMS) ** 2
    for sampler in (uniform_sampler(ITEMS), popularity_sampler(counts).to(DEVICE)):
        for count in (1, 50, 300):
            drawn = draw_negatives(sampler, targets, count, 5)
            assert torch.equal(drawn, draw_negatives(sampler, targets, count, 5, backend="reference"))
