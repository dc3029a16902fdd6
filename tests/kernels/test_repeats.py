import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.repeats import RepeatLayout, cpu, repeat_correction
from recsys.kernels.shared import threads as kernel_threads

LENGTHS = (0, 1, 40, 5, 0, 17, 33, 64, 2, 0)
LONG = (300, 3, 70)


@dataclass
class Case:
    """A batch with its layout, and the states and item vectors it is scored by, float64."""

    lengths: tuple[int, ...]
    items: Any
    visible: Any
    sequences: Any
    places: Any
    targets: Any
    hidden: Tensor
    table: Tensor
    bias: Tensor

    @property
    def layout(self) -> RepeatLayout:
        return RepeatLayout.of(
            self.items, np.array(self.lengths, dtype=np.int64), self.visible, self.sequences, self.places,
            self.targets,
        )  # fmt: skip


def _case(
    lengths: Sequence[int],
    cloze: bool,
    *,
    n_items: int = 23,
    width: int = 20,
    buckets: int = 5,
    seed: int = 0,
) -> Case:
    """Next-item rows behind every event, some events hidden; or rows at hidden events and a few others.

    Half of the targets are items of their own sequence.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array(lengths, dtype=np.int64)
    n = int(sizes.sum())
    sequence = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(n) - starts
    items = rng.integers(0, n_items, n)
    visible = rng.random(n) > 0.2
    rows = np.flatnonzero(~visible | (rng.random(n) < 0.1)) if cloze else np.arange(n)
    sequences, places = sequence[rows], place[rows] + (0 if cloze else 1)
    inside = starts[rows] + (rng.random(len(rows)) * sizes[sequences]).astype(np.int64)
    targets = np.where(rng.random(len(rows)) < 0.5, items[inside], rng.integers(0, n_items, len(rows)))
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    hidden, table = draw(len(rows), width), draw(n_items, width) * 2 / width**0.5
    # A token that stands for nothing visible has an item id beyond the catalog.
    shown = np.where(visible, items, n_items)
    return Case(
        tuple(lengths), shown, visible, sequences, places, targets, hidden, table, 0.7 * draw(buckets)
    )


def _leaves(case: Case, temperature: float, dtype: torch.dtype) -> list[Tensor]:
    """States, keys, totals and bias."""
    keys = case.table[case.layout.items]
    totals = torch.logsumexp(case.hidden @ case.table.T / temperature, 1)
    return [x.to(dtype, copy=True).requires_grad_() for x in (case.hidden, keys, totals, case.bias)]


def _correct(leaves: Sequence[Tensor], layout: RepeatLayout, **options: Any) -> Tensor:
    hidden, keys, totals, bias = leaves
    return repeat_correction(hidden, keys, totals, bias, layout, **options)


def _run(
    case: Case,
    backend: str | None,
    *,
    smoothing: float = 0.0,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> list[Tensor]:
    """The correction, and the gradients of states, keys, totals and bias."""
    dtype = dtype or (torch.float64 if backend == "reference" else torch.float32)
    leaves = _leaves(case, temperature, dtype)
    out = _correct(
        leaves,
        case.layout,
        n_items=len(case.table),
        label_smoothing=smoothing,
        temperature=temperature,
        backend=backend,
        **options,
    )
    upstream = torch.linspace(-0.5, 2.0, len(out), dtype=dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def _assert_as_near_as_float32(case: Case, **options: Any) -> None:
    """Hold our kernel to the definition in double precision as closely as the definition in single keeps it.

    A fixed bound would not do: where negative biases leave a window little of its probability, what is left
    is a difference of two numbers near one.
    """
    exact = _run(case, "reference", **options)
    single = _run(case, "reference", dtype=torch.float32, **options)
    for mine, theirs, want in zip(_run(case, "cpu", **options), single, exact, strict=True):
        assert mine.shape == want.shape
        bound = 1e-6 * float(want.norm()) + 2 * float((theirs - want).norm()) + 1e-7
        assert float((mine - want).norm()) <= bound < 1e-4 * float(want.norm()) + 1e-6


def _bucket(distance: int, buckets: int) -> int:
    return min(max(distance, 1).bit_length() - 1, buckets - 1)


def _dense_losses(
    case: Case, hidden: Tensor, table: Tensor, bias: Tensor, *, sees_later: bool, smoothing: float,
    temperature: float,
) -> Tensor:  # fmt: skip
    """The loss over the whole catalog with the bias added where it belongs, row by row."""
    starts = np.cumsum((0, *case.lengths))
    logits = []
    for row, (sequence, place) in enumerate(zip(case.sequences, case.places, strict=True)):
        nearest: dict[int, int] = {}
        for at in range(case.lengths[sequence]):
            event = starts[sequence] + at
            if not case.visible[event] or (at >= place and not sees_later):
                continue
            item, distance = int(case.items[event]), abs(int(place) - at)
            nearest[item] = min(distance, nearest.get(item, distance))
        added = [torch.zeros(())] * len(table)
        for item, distance in nearest.items():
            added[item] = bias[_bucket(distance, len(bias))]
        logits.append(table @ hidden[row] + torch.stack(added))
    return F.cross_entropy(
        torch.stack(logits) / temperature, torch.from_numpy(case.targets), label_smoothing=smoothing,
        reduction="none",
    )  # fmt: skip


@pytest.mark.parametrize("sees_later", [False, True])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("smoothing", "temperature"), [(0.0, 1.0), (0.2, 0.7)])
def test_loss_and_correction_are_the_loss_with_the_bias(
    backend: str, sees_later: bool, smoothing: float, temperature: float
) -> None:
    case = _case((0, 9, 1, 30), sees_later, n_items=13, width=6)
    windows = [set(case.items[:9]), set(), set(case.items[10:])]
    assert any(t in windows[s - 1] for s, t in zip(case.sequences, case.targets, strict=True))
    dtype = torch.float64 if backend == "reference" else torch.float32
    upstream = torch.linspace(0.5, 2.0, len(case.hidden), dtype=torch.float64)
    found = []
    for ours in (True, False):
        kind = dtype if ours else torch.float64
        leaves = [x.to(kind, copy=True).requires_grad_() for x in (case.hidden, case.table, case.bias)]
        hidden, table, bias = leaves
        if ours:
            logits = hidden @ table.T / temperature
            plain = F.cross_entropy(
                logits, torch.from_numpy(case.targets), label_smoothing=smoothing, reduction="none"
            )
            losses = plain + repeat_correction(
                hidden, table[case.layout.items], torch.logsumexp(logits, 1), bias, case.layout,
                sees_later=sees_later, n_items=len(table), label_smoothing=smoothing,
                temperature=temperature, backend=backend,
            )  # fmt: skip
        else:
            losses = _dense_losses(
                case, hidden, table, bias, sees_later=sees_later, smoothing=smoothing, temperature=temperature
            )
        found.append([losses.detach(), *torch.autograd.grad(losses, leaves, upstream.to(kind))])
    for mine, want in zip(*found, strict=True):
        assert float((mine.double() - want).norm()) <= (1e-12 if dtype == torch.float64 else 2e-6) * float(
            want.norm()
        )


@pytest.mark.parametrize("sees_later", [False, True])
def test_the_reference_has_true_gradients(sees_later: bool) -> None:
    case = _case((4, 0, 6), sees_later, n_items=4, width=3, buckets=3)
    assert torch.autograd.gradcheck(
        lambda *leaves: _correct(
            leaves, case.layout, sees_later=sees_later, n_items=4, label_smoothing=0.2, temperature=0.8
        ),
        _leaves(case, 0.8, torch.float64),
    )


@pytest.mark.parametrize("sees_later", [False, True])
@pytest.mark.parametrize("cloze", [False, True])
@pytest.mark.parametrize(
    ("lengths", "n_items", "width"), [(LENGTHS, 7, 20), (LENGTHS, 90, 64), (LONG, 23, 50), (LONG, 2000, 16)]
)
def test_cpu_agrees_with_the_reference(
    lengths: tuple[int, ...], n_items: int, width: int, cloze: bool, sees_later: bool
) -> None:
    case = _case(lengths, cloze, n_items=n_items, width=width, buckets=8)
    for smoothing, temperature in ((0.0, 1.0), (0.2, 0.6)):
        _assert_as_near_as_float32(case, sees_later=sees_later, smoothing=smoothing, temperature=temperature)


@pytest.mark.parametrize("buckets", [1, 2, 25])
def test_any_number_of_buckets_will_do(buckets: int) -> None:
    case = _case(LENGTHS, True, width=7, buckets=buckets)
    _assert_as_near_as_float32(case, sees_later=True)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 3), (5,)])
def test_a_batch_may_have_no_rows_or_no_events(lengths: tuple[int, ...], backend: str) -> None:
    case = _case(lengths, False)
    case.hidden = case.hidden[:0]
    case.sequences = case.sequences[:0]
    case.places, case.targets = case.places[:0], case.targets[:0]
    found = _run(case, backend, sees_later=False)
    assert [tuple(x.shape) for x in found] == [(0,), (0, 20), (sum(lengths), 20), (0,), (5,)]
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_without_a_window_have_no_correction(backend: str) -> None:
    layout = RepeatLayout.of(
        np.zeros(0, dtype=np.int64), np.array([0, 0]), np.zeros(0, dtype=bool), np.array([0, 1]),
        np.array([0, 0]), np.array([3, 1]),
    )  # fmt: skip
    leaves = [torch.ones(2, 20), torch.ones(0, 20), torch.ones(2), torch.ones(4)]
    leaves = [x.requires_grad_() for x in leaves]
    out = _correct(leaves, layout, sees_later=True, n_items=5, backend=backend)
    assert out.tolist() == [0.0, 0.0]
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_window_that_has_all_of_the_probability_is_clamped_and_pulls_no_state(backend: str) -> None:
    layout = RepeatLayout.of(
        np.array([2]), np.array([1]), np.ones(1, dtype=bool), np.array([0]), np.array([1]), np.array([2])
    )
    leaves = [
        torch.ones(1, 16), torch.ones(1, 16), torch.full((1,), 16.0), torch.full((1,), -60.0)
    ]  # fmt: skip
    leaves = [x.requires_grad_() for x in leaves]
    out = _correct(leaves, layout, sees_later=False, n_items=5, backend=backend)
    assert float(out.detach()) == pytest.approx(math.log(1e-6) + 60.0, rel=1e-3)
    *still, pulled = torch.autograd.grad(out.sum(), leaves)
    assert not any(g.any() for g in still)
    assert pulled.tolist() == [-1.0]


def test_events_that_do_not_count_are_not_multiplied() -> None:
    case = _case(LENGTHS, True)
    wanted = _run(case, "cpu", sees_later=True)
    leaves = _leaves(case, 1.0, torch.float32)
    hidden, keys, totals, bias = leaves
    poisoned = torch.where(case.layout.visible[:, None], keys, math.nan).detach().requires_grad_()
    out = repeat_correction(
        hidden, poisoned, totals, bias, case.layout, sees_later=True, n_items=len(case.table)
    )
    upstream = torch.linspace(-0.5, 2.0, len(out))
    found = [out.detach(), *torch.autograd.grad(out, (hidden, poisoned, totals, bias), upstream)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_nan_in_a_state_stays_in_its_row() -> None:
    case = _case((6, 40), False)
    case.hidden[9] = math.nan
    assert torch.isnan(_run(case, "cpu", sees_later=False)[0]).nonzero().tolist() == [[9]]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("sees_later", [False, True])
def test_the_number_of_threads_changes_no_bit(sees_later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_threads, "STEPS_PER_THREAD", 1)
    case = _case((*LENGTHS, *LONG), sees_later, width=64)
    found = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        found.append(_run(case, "cpu", sees_later=sees_later, smoothing=0.1))
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, found[0], strict=True))


@pytest.mark.parametrize("cloze", [False, True])
def test_a_sequence_has_the_same_bits_alone(cloze: bool) -> None:
    case = _case(LENGTHS, cloze)
    out, d_hidden, d_keys, d_totals, _ = _case_gradients(case, cloze, torch.ones(len(case.hidden)))
    bounds = np.cumsum((0, *case.lengths))
    for sequence, length in enumerate(case.lengths):
        rows = np.flatnonzero(case.sequences == sequence)
        events = slice(bounds[sequence], bounds[sequence + 1])
        part = Case(
            (length,), case.items[events], case.visible[events], case.sequences[rows] * 0, case.places[rows],
            case.targets[rows], case.hidden[rows], case.table, case.bias,
        )  # fmt: skip
        single = _case_gradients(part, cloze, torch.ones(len(rows)))
        for a, b in zip(single, (out[rows], d_hidden[rows], d_keys[events], d_totals[rows]), strict=False):
            assert torch.equal(a, b)


def _case_gradients(case: Case, sees_later: bool, upstream: Tensor) -> list[Tensor]:
    # Totals of a fixed number: a logsumexp of PyTorch's may differ by the batch in its last bit.
    hidden, keys, _, bias = _leaves(case, 1.0, torch.float32)
    totals = torch.full((len(hidden),), 4.0, requires_grad=True)
    leaves = (hidden, keys, totals, bias)
    out = _correct(leaves, case.layout, sees_later=sees_later, n_items=23)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def test_strided_states_and_an_expanded_gradient_will_do() -> None:
    case = _case(LENGTHS, False)
    wanted = _case_gradients(case, False, torch.ones(len(case.hidden)))
    hidden, keys, _, bias = (x.detach() for x in _leaves(case, 1.0, torch.float32))
    wide, flipped = torch.randn(len(hidden), 50), keys.T.contiguous().T
    wide[:, 7:27] = hidden
    leaves = [x.requires_grad_() for x in (wide, flipped, torch.full((len(hidden),), 4.0), bias)]
    out = _correct([wide[:, 7:27], *leaves[1:]], case.layout, sees_later=False, n_items=23, backend="cpu")
    d_wide, *rest = torch.autograd.grad(out.sum(), leaves)
    assert torch.equal(d_wide[:, 7:27], wanted[1])
    assert all(torch.equal(a, b) for a, b in zip(rest, wanted[2:], strict=True))


def test_the_operator_keeps_torchs_rules() -> None:
    case = _case((5, 0, 20), False, width=16)
    layout = case.layout
    leaves = _leaves(case, 1.0, torch.float32)
    tensors = [getattr(layout, name) for name in cpu.LAYOUT]
    torch.library.opcheck(cpu.correction.forward.operator, (*leaves, tensors, False, 1.0, 0.9, 0.01))


def test_a_layout_worked_by_hand() -> None:
    # Sequences a b a . b / (none) / b; the dot is hidden. Rows at places 3 and 5 of the first, 1 of the last.
    a, b, mask = 4, 6, 9
    layout = RepeatLayout.of(
        np.array([a, b, a, mask, b, b]), np.array([5, 0, 1]), np.array([1, 1, 1, 0, 1, 1], dtype=bool),
        np.array([0, 0, 2]), np.array([3, 5, 1]), np.array([a, b, a]),
    )  # fmt: skip
    far = 1 << 20
    assert layout.items.tolist() == [a, b, a, 0, b, b]
    assert layout.following.tolist() == [2, 4, far, far, far, far]
    assert layout.preceding.tolist() == [-far, -far, 0, -far, 1, -far]
    assert layout.event_offsets.tolist() == [0, 5, 5, 6]
    assert layout.row_offsets.tolist() == [0, 2, 2, 3]
    assert layout.shape == (3, 2, 5)
    assert layout.event_slots.tolist() == [0, 1, 2, 3, 4, 10]
    assert layout.row_slots.tolist() == [0, 1, 4]
    assert layout.to(torch.device("cpu")).places.tolist() == [3, 5, 1]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_correction_of_a_case_worked_by_hand(backend: str) -> None:
    # Every logit is 0 and there are 10 items, so each has a tenth. The row at place 3 meets a at 2, and b at
    # 1 or, if it sees later events, at 4; the row at 5 meets b at 4 and a at 2.
    a, b, mask = 4, 6, 9
    layout = RepeatLayout.of(
        np.array([a, b, a, mask, b]), np.array([5]), np.array([1, 1, 1, 0, 1], dtype=bool), np.array([0, 0]),
        np.array([3, 5]), np.array([a, 0]),
    )  # fmt: skip
    near, far = math.log(3.0), math.log(2.0)
    bias = torch.tensor([near, far])
    still = torch.zeros(2, 4), torch.zeros(5, 4), torch.full((2,), math.log(10.0)), bias
    behind = _correct(still, layout, sees_later=False, n_items=10, backend=backend)
    torch.testing.assert_close(behind, torch.tensor([math.log(1.3) - near, math.log(1.3)]))
    around = _correct(still, layout, sees_later=True, n_items=10, backend=backend)
    torch.testing.assert_close(around, torch.tensor([math.log(1.4) - near, math.log(1.3)]))
    smooth = _correct(still, layout, sees_later=False, n_items=10, label_smoothing=0.5, backend=backend)
    even = 0.05 * (near + far)
    torch.testing.assert_close(
        smooth, torch.tensor([math.log(1.3) - 0.5 * near - even, math.log(1.3) - even])
    )


def test_arguments_that_do_not_fit_are_refused() -> None:
    case = _case((5, 3), False)
    leaves = [x.detach() for x in _leaves(case, 1.0, torch.float32)]
    hidden, keys, totals, bias = leaves

    def correct(*changed: Tensor, backend: str | None = None) -> Tensor:
        return _correct(changed, case.layout, sees_later=False, n_items=23, backend=backend)

    with pytest.raises(ArgumentError, match=r"\(7, 20\).*layout of 8 rows and 8 events"):
        correct(hidden[:7], keys, totals, bias)
    with pytest.raises(ArgumentError, match=r"\(8, 19\).*layout"):
        correct(hidden, keys[:, :19], totals, bias)
    with pytest.raises(ArgumentError, match=r"log_totals must be \(8,\)"):
        correct(hidden, keys, totals[:5], bias)
    with pytest.raises(ArgumentError, match=r"bias \(K,\), K >= 1"):
        correct(hidden, keys, totals, bias[:0])
    with pytest.raises(ArgumentError, match="dtypes differ"):
        correct(hidden, keys.double(), totals, bias)
    with pytest.raises(ArgumentError, match="use one of reference, cpu, triton or None"):
        correct(*leaves, backend="mamba-ssm")
    with pytest.raises(ArgumentError, match="float64"):
        correct(*(x.double() for x in leaves), backend="cpu")
    with pytest.raises(ArgumentError, match="takes float32, not torch.bfloat16"):
        correct(*(x.bfloat16() for x in leaves), backend="cpu")
    assert correct(*(x.bfloat16() for x in leaves)).dtype == torch.bfloat16
