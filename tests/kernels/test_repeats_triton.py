"""Both corrections on the GPU's side against their definitions; on the CPU in Triton's interpreter."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.kernels.repeats import Occurrences, RepeatLayout, occurrence_correction, repeat_correction
from recsys.kernels.repeats.occurrences import CLOCK, event_runs
from recsys.kernels.repeats.triton_occurrences import RUN_EVENTS
from tests.kernels.tensors import assert_near

DAY = 86_400
LENGTHS = (0, 1, 40, 5, 0, 33, 2)


@dataclass
class Case:
    """A batch, float64: next-item rows behind every event, or Cloze rows at the hidden events."""

    layout: RepeatLayout
    hidden: Tensor
    keys: Tensor
    logits: Tensor
    biases: Tensor
    weights: Tensor
    sees_later: bool

    def leaves(
        self, by_all: bool, device: torch.device, dtype: torch.dtype, rate: float = 1.0
    ) -> list[Tensor]:
        """States, keys, totals at a temperature's inverse, and biases or weights."""
        totals = torch.logsumexp(self.logits * rate, 1)
        tensors = self.hidden, self.keys, totals, self.weights if by_all else self.biases
        return [x.to(device, dtype, copy=True).requires_grad_() for x in tensors]


def _case(
    lengths: tuple[int, ...],
    *,
    cloze: bool = False,
    clock: bool = True,
    n_items: int = 9,
    width: int = 20,
    buckets: int = 5,
) -> Case:
    """Half of the targets are items of their own sequence; a fifth of the events is hidden."""
    rng = np.random.default_rng(len(lengths) + width)
    sizes = np.array(lengths, dtype=np.int64)
    n = int(sizes.sum())
    sequence = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    visible, drawn = rng.random(n) > 0.2, rng.integers(0, n_items, n)
    rows = np.flatnonzero(~visible) if cloze else np.arange(n)
    targets = np.where(rng.random(len(rows)) < 0.5, drawn[rows], rng.integers(0, n_items, len(rows)))
    items = np.where(visible, drawn, n_items)
    layout = RepeatLayout.of(items, sizes, visible, sequence[rows], place[rows] + (not cloze), targets)
    times = [torch.from_numpy(rng.integers(-DAY, 500 * DAY, k)) for k in (n, len(rows))]
    own = Occurrences.of(items, sizes, visible, *(times if clock else (None, None)))
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    hidden, table = draw(len(rows), width), draw(n_items, width) * 2 / width**0.5
    return Case(
        replace(layout, occurrences=own), hidden, table[layout.items], hidden @ table.T,
        0.7 * draw(buckets), 0.4 * draw(buckets + CLOCK * clock), cloze,
    )  # fmt: skip


def _correction(by_all: bool) -> Callable[..., Tensor]:
    return occurrence_correction if by_all else repeat_correction


def _run(
    case: Case,
    by_all: bool,
    backend: str,
    device: torch.device,
    *,
    smoothing: float = 0.0,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The correction, and the gradients of states, keys, totals and biases."""
    leaves = case.leaves(by_all, device, dtype, 1 / temperature)
    out = _correction(by_all)(
        *leaves, case.layout.to(device), sees_later=case.sees_later, n_items=9, label_smoothing=smoothing,
        temperature=temperature, backend=backend,
    )  # fmt: skip
    upstream = torch.linspace(-0.5, 2.0, len(out), dtype=dtype, device=device)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def _agree(case: Case, by_all: bool, device: torch.device, **options: Any) -> None:
    """Ours is nearly as true as the definition in single precision, and the same in a second run."""
    exact = _run(case, by_all, "reference", device, dtype=torch.float64, **options)
    single = _run(case, by_all, "reference", device, **options)
    ours = _run(case, by_all, "triton", device, **options)
    for mine, theirs, want in zip(ours, single, exact, strict=True):
        assert mine.shape == want.shape
        assert mine.dtype == torch.float32
        bound = 2e-6 * float(want.norm()) + 2 * float((theirs - want).norm()) + 1e-7
        assert float((mine - want).norm()) <= bound < 1e-4 * float(want.norm()) + 1e-6
    again = _run(case, by_all, "triton", device, **options)
    assert all(torch.equal(a, b) for a, b in zip(again, ours, strict=True))


@pytest.mark.parametrize("cloze", [False, True])
@pytest.mark.parametrize(("width", "n_items", "buckets"), [(20, 9, 5), (64, 60, 1), (70, 3, 9)])
def test_the_nearest_occurrence_counts_as_in_the_definition(
    width: int, n_items: int, buckets: int, cloze: bool, device: torch.device
) -> None:
    case = _case(LENGTHS, cloze=cloze, width=width, n_items=n_items, buckets=buckets)
    _agree(case, False, device)
    _agree(case, False, device, smoothing=0.2, temperature=0.6)


@pytest.mark.parametrize("cloze", [False, True])
@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize(("width", "n_items"), [(20, 9), (70, 60)])
def test_all_occurrences_count_as_in_the_definition(
    width: int, n_items: int, clock: bool, cloze: bool, device: torch.device
) -> None:
    case = _case(LENGTHS, cloze=cloze, clock=clock, width=width, n_items=n_items)
    _agree(case, True, device)
    _agree(case, True, device, smoothing=0.2, temperature=0.6)


@pytest.mark.parametrize("cloze", [False, True])
def test_items_whose_occurrences_fill_several_blocks(cloze: bool, device: torch.device) -> None:
    # Runs that begin in one block, pass through another and end in a third, beside short ones.
    lengths = (3 * RUN_EVENTS + 20, 2 * RUN_EVENTS)
    case = _case(lengths, cloze=cloze, n_items=2, width=16)
    runs = event_runs(case.layout.occurrences.first, case.layout.event_offsets)  # type: ignore[union-attr]
    heads = runs[1, : lengths[0]].tolist()
    assert max(heads.count(head) for head in heads) > RUN_EVENTS
    _agree(case, True, device, smoothing=0.1, temperature=0.8)


def test_runs_worked_by_hand() -> None:
    # Sequences a b a . b / (none) / b; the dot is hidden and stands alone.
    a, b, mask = 4, 6, 9
    items, lengths = np.array([a, b, a, mask, b, b]), np.array([5, 0, 1])
    own = Occurrences.of(items, lengths, items != mask)
    runs = event_runs(own.first, torch.tensor([0, 5, 5, 6], dtype=torch.int32))
    assert runs.tolist() == [[0, 2, 1, 4, 3, 5], [0, 0, 1, 1, 3, 5], [1, 1, 3, 3, 4, 5]]
    assert runs.dtype == torch.int32


def test_a_layout_goes_to_a_device_by_one_copy_with_its_runs() -> None:
    layout = _case((5, 0, 20)).layout
    assert layout.to(torch.device("cpu")) is layout
    ready = layout.with_runs()
    assert ready.occurrences is not None
    assert ready.with_runs() is ready
    assert torch.equal(
        ready.occurrences.runs,  # type: ignore[arg-type]
        event_runs(ready.occurrences.first, layout.event_offsets),
    )
    moved = layout.to(torch.device("meta"))
    assert (moved.shape, moved.items.shape, moved.visible.dtype) == ((3, 20, 20), (25,), torch.bool)
    assert moved.occurrences is not None
    assert moved.occurrences.runs is not None
    assert (moved.occurrences.runs.shape, moved.occurrences.runs.dtype) == ((3, 25), torch.int32)
    tensors = [moved.items, moved.places, moved.row_offsets, moved.occurrences.first, moved.occurrences.runs]
    assert len({x.untyped_storage()._cdata for x in tensors}) == 1


@pytest.mark.parametrize("by_all", [False, True])
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 3)])
def test_a_batch_may_have_no_rows_or_no_events(
    lengths: tuple[int, ...], by_all: bool, device: torch.device
) -> None:
    case = _case((*lengths, 2))
    n = sum(lengths)
    layout = RepeatLayout.of(
        case.layout.items.numpy()[:n], np.array(lengths, dtype=np.int64), np.ones(n, dtype=bool),
        *np.zeros((3, 0), dtype=np.int64),
    )  # fmt: skip
    none = torch.zeros(n, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    own = Occurrences.of(layout.items.numpy(), np.array(lengths, dtype=np.int64), np.ones(n, bool), *none)
    empty = replace(
        case, layout=replace(layout, occurrences=own), hidden=case.hidden[:0], keys=case.keys[:n],
        logits=case.logits[:0],
    )  # fmt: skip
    found = _run(empty, by_all, "triton", device)
    biases = 5 + CLOCK if by_all else 5
    assert [tuple(x.shape) for x in found] == [(0,), (0, 20), (n, 20), (0,), (biases,)]
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("by_all", [False, True])
def test_a_sequence_has_the_same_bits_alone(by_all: bool, device: torch.device) -> None:
    whole, long = _case((7, 40, 12), clock=False), slice(7, 47)
    layout = RepeatLayout.of(
        np.where(whole.layout.visible[long], whole.layout.items[long], 9), np.array([40]),
        whole.layout.visible[long].numpy(), np.zeros(40, dtype=np.int64), whole.layout.places[long].numpy(),
        whole.layout.targets[long].numpy(),
    )  # fmt: skip
    own = Occurrences.of(layout.items.numpy(), np.array([40]), layout.visible.numpy())
    alone = Case(
        replace(layout, occurrences=own), whole.hidden[long], whole.keys[long], whole.logits[long],
        whole.biases, whole.weights, False,
    )  # fmt: skip
    found = []
    for case in (whole, alone):
        leaves = case.leaves(by_all, device, torch.float32)
        leaves[2] = torch.full_like(leaves[2], 4.0).requires_grad_()  # a logsumexp may differ by the batch
        out = _correction(by_all)(
            *leaves, case.layout.to(device), sees_later=False, n_items=9, backend="triton"
        )
        found.append([out.detach(), *torch.autograd.grad(out.sum(), leaves[:3])])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a[long], b)


@pytest.mark.parametrize("by_all", [False, True])
def test_events_that_do_not_count_are_not_multiplied(by_all: bool, device: torch.device) -> None:
    case = _case(LENGTHS, cloze=True)
    poisoned = replace(case, keys=torch.where(case.layout.visible[:, None], case.keys, math.nan))
    wanted, found = (_run(x, by_all, "triton", device) for x in (case, poisoned))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_window_that_has_all_of_the_probability_is_clamped_and_pulls_no_state(device: torch.device) -> None:
    layout = RepeatLayout.of(
        np.array([2]), np.array([1]), np.ones(1, dtype=bool), np.array([0]), np.array([1]), np.array([2])
    )
    leaves = [torch.ones(1, 16), torch.ones(1, 16), torch.full((1,), 16.0), torch.full((1,), -60.0)]
    leaves = [x.to(device).requires_grad_() for x in leaves]
    out = _correction(False)(*leaves, layout.to(device), sees_later=False, n_items=5, backend="triton")
    assert float(out.detach()) == pytest.approx(math.log(1e-6) + 60.0, rel=1e-3)
    *still, pulled = torch.autograd.grad(out.sum(), leaves)
    assert not any(g.any() for g in still)
    assert pulled.tolist() == [-1.0]


@pytest.mark.parametrize("by_all", [False, True])
def test_half_precision_is_multiplied_as_it_is(by_all: bool, device: torch.device) -> None:
    case = _case(LENGTHS, width=16)
    case = replace(
        case, hidden=case.hidden.half(), keys=case.keys.half(), biases=case.biases.half(),
        weights=case.weights.half(),
    )  # fmt: skip
    ours = _run(case, by_all, "triton", device, dtype=torch.float16)
    assert {x.dtype for x in ours} == {torch.float16}
    exact = _run(case, by_all, "reference", device, dtype=torch.float64)
    assert_near([x.cpu() for x in ours], [x.cpu() for x in exact], 1e-2)


def test_a_nan_in_a_state_stays_in_its_row(device: torch.device) -> None:
    case = _case((6, 40))
    case.hidden[9] = math.nan
    for by_all in (False, True):
        assert _run(case, by_all, "triton", device)[0].isnan().nonzero().tolist() == [[9]]
