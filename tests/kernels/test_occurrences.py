import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.repeats import (
    Occurrences,
    RepeatLayout,
    cpu_occurrences,
    occurrence_correction,
    repeat_correction,
)
from recsys.kernels.repeats.occurrences import AGES, CLOCK, DAYS, HOURS, clock_buckets, quarters
from recsys.kernels.shared import threads as kernel_threads
from recsys.kernels.shared.vector import LANES, compiled, load, store
from recsys.kernels.shared.vector.activation import logarithm

LENGTHS = (0, 1, 40, 5, 0, 17, 33, 64, 2, 0)
LONG = (300, 3, 70)
DAY = 86_400


def _correct(
    leaves: list[Tensor],
    layout: RepeatLayout,
    correction: Callable[..., Tensor] = occurrence_correction,
    **options: Any,
) -> Tensor:
    hidden, keys, totals, weights = leaves
    return correction(hidden, keys, totals, weights, layout, **options)


class Case:
    """Next-item rows behind every event, some of which are hidden; or rows at hidden events.

    Half of the targets are items of their own sequence. Everything float64.
    """

    def __init__(
        self,
        lengths: tuple[int, ...],
        *,
        cloze: bool = False,
        clock: bool = True,
        n_items: int = 23,
        width: int = 20,
        buckets: int = 5,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        sizes = np.array(lengths, dtype=np.int64)
        n = int(sizes.sum())
        self.sizes, self.n_items = sizes, n_items
        self.sequence = np.repeat(np.arange(len(sizes)), sizes)
        self.place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self.visible = rng.random(n) > 0.2
        drawn = rng.integers(0, n_items, n)
        rows = np.flatnonzero(~self.visible) if cloze else np.arange(n)
        self.row_sequence, self.row_place = self.sequence[rows], self.place[rows] + (not cloze)
        self.targets = np.where(rng.random(len(rows)) < 0.5, drawn[rows], rng.integers(0, n_items, len(rows)))
        # A token that stands for nothing visible has an item id beyond the catalog.
        self.items = np.where(self.visible, drawn, n_items)
        self.times = torch.from_numpy(rng.integers(0, 500 * DAY, n)) if clock else None
        self.asked = torch.from_numpy(rng.integers(0, 500 * DAY, len(rows))) if clock else None
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.hidden, self.table = draw(len(rows), width), draw(n_items, width) * 2 / width**0.5
        self.weights = 0.4 * draw(buckets + CLOCK * clock)

    @property
    def layout(self) -> RepeatLayout:
        plain = RepeatLayout.of(
            self.items, self.sizes, self.visible, self.row_sequence, self.row_place, self.targets
        )
        own = Occurrences.of(self.items, self.sizes, self.visible, self.times, self.asked)
        return replace(plain, occurrences=own)

    def leaves(self, temperature: float, dtype: torch.dtype) -> list[Tensor]:
        """States, keys, totals and weights."""
        keys = self.table[self.layout.items]
        totals = torch.logsumexp(self.hidden @ self.table.T / temperature, 1)
        return [x.to(dtype, copy=True).requires_grad_() for x in (self.hidden, keys, totals, self.weights)]

    def run(
        self,
        backend: str | None,
        *,
        sees_later: bool = False,
        smoothing: float = 0.0,
        temperature: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> list[Tensor]:
        """The correction, and the gradients of states, keys, totals and weights."""
        leaves = self.leaves(temperature, dtype)
        out = _correct(
            leaves, self.layout, sees_later=sees_later, n_items=self.n_items, label_smoothing=smoothing,
            temperature=temperature, backend=backend,
        )  # fmt: skip
        upstream = torch.linspace(-0.5, 2.0, len(out), dtype=dtype)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def _log_weight(case: Case, weights: Tensor, row: int, event: int) -> Tensor:
    """The log of the weight of an event for a row, from the times themselves."""
    n = len(weights) - CLOCK * (case.times is not None)
    distance = abs(int(case.row_place[row]) - int(case.place[event]))
    total = weights[min(int(math.log2(distance)), n - 1)]
    if case.times is None or case.asked is None:
        return total
    now, then = int(case.asked[row]) // 900, int(case.times[event]) // 900
    apart = abs(now % 96 - then % 96)
    hours = min(apart, 96 - apart) / 4
    total = total + weights[n + min(int(hours * 2), HOURS - 1)]
    total = total + weights[n + HOURS + min(int(math.log2(max(abs(now - then), 1))), AGES - 1)]
    # 1970 began on a Thursday.
    days = [(x // 96 + 3) % 7 for x in (now, then)]
    kind = 0 if days[0] == days[1] else 1 if (days[0] >= 5) == (days[1] >= 5) else 2
    return total + weights[n + HOURS + AGES + kind]


def _dense_losses(case: Case, leaves: list[Tensor], *, sees_later: bool, **options: float) -> Tensor:
    """The loss over the whole catalog with the bias added where it belongs, row by row."""
    hidden, table, weights = leaves
    logits = []
    for row in range(len(hidden)):
        parts: dict[int, list[Tensor]] = {}
        for event in np.flatnonzero((case.sequence == case.row_sequence[row]) & case.visible).tolist():
            if sees_later or case.place[event] < case.row_place[row]:
                parts.setdefault(int(case.items[event]), []).append(_log_weight(case, weights, row, event))
        added = [torch.zeros((), dtype=torch.float64)] * len(table)
        for item, logs in parts.items():
            added[item] = torch.logsumexp(torch.stack(logs), 0)
        logits.append(table @ hidden[row] + torch.stack(added))
    return F.cross_entropy(
        torch.stack(logits) / options["temperature"], torch.from_numpy(case.targets),
        label_smoothing=options["smoothing"], reduction="none",
    )  # fmt: skip


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize("sees_later", [False, True])
@pytest.mark.parametrize(("smoothing", "temperature"), [(0.0, 1.0), (0.2, 0.7)])
def test_loss_and_correction_are_the_loss_with_the_bias(
    smoothing: float, temperature: float, sees_later: bool, clock: bool
) -> None:
    case = Case((0, 9, 1, 25), cloze=sees_later, clock=clock, n_items=9, width=6)
    upstream = torch.linspace(0.5, 2.0, len(case.hidden), dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (case.hidden, case.table, case.weights)]
    hidden, table, weights = leaves
    logits = hidden @ table.T / temperature
    plain = F.cross_entropy(
        logits, torch.from_numpy(case.targets), label_smoothing=smoothing, reduction="none"
    )
    losses = plain + occurrence_correction(
        hidden, table[case.layout.items], torch.logsumexp(logits, 1), weights, case.layout,
        sees_later=sees_later, n_items=len(table), label_smoothing=smoothing, temperature=temperature,
    )  # fmt: skip
    wanted = _dense_losses(case, leaves, sees_later=sees_later, smoothing=smoothing, temperature=temperature)
    torch.testing.assert_close(losses, wanted, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(losses, leaves, upstream)
    for mine, want in zip(found, torch.autograd.grad(wanted, leaves, upstream), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sees_later", [False, True])
@pytest.mark.parametrize("cloze", [False, True])
@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize(("lengths", "n_items", "width"), [(LENGTHS, 7, 20), (LONG, 23, 50), (LONG, 900, 16)])
def test_cpu_agrees_with_the_reference(
    lengths: tuple[int, ...], n_items: int, width: int, clock: bool, cloze: bool, sees_later: bool
) -> None:
    case = Case(lengths, cloze=cloze, clock=clock, n_items=n_items, width=width, buckets=8)
    for smoothing, temperature in ((0.0, 1.0), (0.2, 0.6)):
        options: dict[str, Any] = {
            "sees_later": sees_later,
            "smoothing": smoothing,
            "temperature": temperature,
        }
        exact = case.run("reference", dtype=torch.float64, **options)
        single = case.run("reference", **options)
        for mine, theirs, want in zip(case.run("cpu", **options), single, exact, strict=True):
            assert mine.shape == want.shape
            bound = 2e-6 * float(want.norm()) + 2 * float((theirs - want).norm()) + 1e-7
            assert float((mine - want).norm()) <= bound < 1e-4 * float(want.norm()) + 1e-6


def test_without_repeats_it_is_the_bias_by_the_last_occurrence() -> None:
    case = Case((12, 30), clock=False, n_items=500)
    shuffled = np.random.default_rng(1).permutation(500)[: len(case.items)]
    case.items = np.where(case.visible, shuffled, 500)
    leaves = case.leaves(1.0, torch.float32)
    options: dict[str, Any] = {"sees_later": False, "n_items": 500, "label_smoothing": 0.1}
    found = _correct(leaves, case.layout, **options)
    torch.testing.assert_close(found, _correct(leaves, case.layout, repeat_correction, **options))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_correction_of_a_case_worked_by_hand(backend: str) -> None:
    # Every logit is 0 and there are 10 items, so each has a tenth. A row behind a b a: a has weights 3 and 2.
    a, b = 4, 6
    items, lengths, visible = np.array([a, b, a]), np.array([3]), np.ones(3, dtype=bool)
    plain = RepeatLayout.of(items, lengths, visible, np.array([0]), np.array([3]), np.array([a]))
    layout = replace(plain, occurrences=Occurrences.of(items, lengths, visible))
    weights = torch.tensor([3.0, 2.0]).log()
    still = [torch.zeros(1, 4), torch.zeros(3, 4), torch.full((1,), math.log(10.0)), weights]
    found = _correct(still, layout, sees_later=False, n_items=10, backend=backend)
    torch.testing.assert_close(found, torch.tensor([math.log(1.0 + 0.4 + 0.1) - math.log(5.0)]))


def test_buckets_of_the_clock() -> None:
    # Friday 1970-01-02 at 23:50 against: the same evening, half an hour later on Saturday, a week before.
    friday = 2 * DAY - 600
    asked = quarters(torch.tensor([friday, friday + 1800, friday + 7 * DAY, friday + 4 * DAY + 43_200]))
    hour, age, day = clock_buckets(asked, quarters(torch.tensor([friday])))
    assert hour.tolist() == [0, 1, 0, 23]
    assert age.tolist() == [0, 1, 9, 8]  # 0, 2, 672 and 432 quarter hours
    assert day.tolist() == [0, 2, 0, 1]
    assert clock_buckets(torch.tensor([2**20]), torch.tensor([0]))[1].tolist() == [AGES - 1]
    assert CLOCK == HOURS + AGES + DAYS


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 3)])
def test_a_batch_may_have_no_rows_or_no_events(lengths: tuple[int, ...], backend: str) -> None:
    case = Case(lengths)
    case.hidden, case.row_sequence, case.row_place = (
        case.hidden[:0],
        case.row_sequence[:0],
        case.row_place[:0],
    )
    case.targets, case.asked = case.targets[:0], torch.zeros(0, dtype=torch.int64)
    found = case.run(backend)
    assert [tuple(x.shape) for x in found] == [(0,), (0, 20), (sum(lengths), 20), (0,), (5 + CLOCK,)]
    assert not any(x.any() for x in found)


def test_events_that_do_not_count_are_not_multiplied() -> None:
    case = Case(LENGTHS, cloze=True)
    for backend in ("reference", "cpu"):
        wanted = case.run(backend, sees_later=True)[0]
        hidden, keys, totals, weights = case.leaves(1.0, torch.float32)
        poisoned = torch.where(case.layout.visible[:, None], keys, math.nan)
        out = occurrence_correction(
            hidden, poisoned, totals, weights, case.layout, sees_later=True, n_items=23, backend=backend
        )
        assert torch.equal(out, wanted)


@pytest.mark.parametrize("sees_later", [False, True])
def test_the_number_of_threads_changes_no_bit(sees_later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_threads, "STEPS_PER_THREAD", 1)
    case = Case((*LENGTHS, *LONG), width=64)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            found.append(case.run("cpu", sees_later=sees_later, smoothing=0.1))
    finally:
        torch.set_num_threads(before)
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, found[0], strict=True))


def test_the_operator_keeps_torchs_rules() -> None:
    case = Case((5, 0, 20), width=16)
    tensors = cpu_occurrences.layout_tensors(case.layout)
    leaves = case.leaves(1.0, torch.float32)
    torch.library.opcheck(
        cpu_occurrences.correction.forward.operator, (*leaves, tensors, False, 1.0, 0.9, 0.01)
    )


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = Case((5, 3))
    leaves = [x.detach() for x in case.leaves(1.0, torch.float32)]
    options: dict[str, Any] = {"sees_later": False, "n_items": 23}
    with pytest.raises(ArgumentError, match=r"43 weights; this layout needs at least 44"):
        _correct([*leaves[:3], leaves[3][:43]], case.layout, **options)
    with pytest.raises(ArgumentError, match=r"knows no occurrences"):
        _correct(leaves, replace(case.layout, occurrences=None), **options)
    case.asked = None
    with pytest.raises(ArgumentError, match=r"times of events and of rows go together"):
        _correct(leaves, case.layout, **options)
    with pytest.raises(ArgumentError, match=r"takes float32, not torch.bfloat16"):
        _correct([x.bfloat16() for x in leaves], Case((5, 3)).layout, backend="cpu", **options)


@compiled
def _logarithms(x: Any, out: Any) -> None:
    for at in range(0, len(x), LANES):
        store(out, at, logarithm(load(x, at)))


def test_logarithms_of_vectors() -> None:
    x = np.exp(np.random.default_rng(0).uniform(-80, 80, 64 * LANES)).astype(np.float32)
    x[: 2 * LANES] = np.linspace(0.9, 1.1, 2 * LANES, dtype=np.float32)
    x[0] = 1.0
    out = np.empty_like(x)
    _logarithms(x, out)
    exact = np.log(x.astype(np.float64))
    assert out[0] == 0.0
    assert (np.abs(out - exact) <= 1.5e-7 * np.abs(exact) + 1e-8).all()
