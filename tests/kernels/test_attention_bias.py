import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.attention import (
    AttentionBias,
    added_scores,
    attention_step,
    cpu,
    cpu_tasks,
    jagged_attention,
)
from recsys.kernels.attention.bias import MAX_BUCKETS, MAX_GAP, relative_position, time_bucket
from tests.kernels.tensors import offsets_of

LENGTHS = (3, 0, 1, 63, 64, 0, 65, 2, 180)
EDGES = sorted({max(0, n * 2**e // 4 + d) for e in range(33) for n in (4, 5, 6, 7) for d in (-1, 0, 1)})


class _Case:
    """Random inputs of a call with a bias, unsorted stamps around 2^31 that tie now and then."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        heads: int = 2,
        width: int = 16,
        buckets: int = 64,
        positions: int = 15,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = tuple(lengths)
        n = sum(lengths)
        self.events = [torch.randn(n, heads, width, generator=generator) for _ in range(4)]
        spread = (2 ** (torch.rand(n, generator=generator) * 20)).long()
        self.stamps = 2**31 + spread * torch.randint(-1, 2, (n,), generator=generator)
        self.tables: list[Tensor | None] = [
            torch.randn(heads, size, generator=generator) if size else None for size in (buckets, positions)
        ]

    def run(
        self,
        *,
        backend: str = "cpu",
        causal: bool = True,
        dropout_p: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """The output and the gradients of q, k, v and the tables; the reference runs in float64."""
        dtype = dtype or (torch.float64 if backend == "reference" else torch.float32)
        q, k, v, grad = (x.to(dtype).detach() for x in self.events)
        tables = [None if x is None else x.to(dtype).detach() for x in self.tables]
        leaves = [x.requires_grad_() for x in (q, k, v, *tables) if x is not None]
        stamps = None if tables[0] is None else self.stamps
        out = jagged_attention(
            q,
            k,
            v,
            offsets_of(self.lengths),
            causal=causal,
            max_length=max(self.lengths, default=0),
            dropout_p=dropout_p,
            generator=torch.Generator().manual_seed(7),
            bias=AttentionBias(tables[0], stamps, tables[1]),
            backend=backend,
        )
        return [out.detach(), *torch.autograd.grad(out, leaves, grad)]

    def part(self, start: int, stop: int) -> "_Case":
        """Some whole sequences of this case."""
        other = _Case(self.lengths[start:stop])
        rows = slice(sum(self.lengths[:start]), sum(self.lengths[:stop]))
        other.events = [x[rows] for x in self.events]
        other.stamps, other.tables = self.stamps[rows], self.tables
        return other


def _assert_close(ours: Sequence[Tensor], exact: Sequence[Tensor], bound: float = 3e-6) -> None:
    for a, b in zip(ours, exact, strict=True):
        assert a.shape == b.shape
        assert float((a.double() - b).norm()) <= bound * float(b.norm()) + 1e-12


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def test_buckets_are_quarters_of_doublings() -> None:
    gaps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 2**30, MAX_GAP, MAX_GAP + 1, 2**62]
    wanted = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 116, 119, 119, 119]
    assert time_bucket(torch.tensor(gaps), MAX_BUCKETS).tolist() == wanted
    assert time_bucket(torch.tensor(gaps), 6).tolist() == [min(b, 5) for b in wanted]


def test_buckets_never_fall_and_miss_none() -> None:
    found = time_bucket(torch.tensor(EDGES), MAX_BUCKETS).tolist()
    assert found == sorted(found)
    assert set(found) == set(range(MAX_BUCKETS))


def test_positions_are_clipped_distances() -> None:
    query, key = torch.tensor([5, 5, 5, 5]), torch.tensor([5, 4, 0, 9])
    assert relative_position(query, key, 3, True).tolist() == [0, 1, 2, 0]
    assert relative_position(query, key, 5, False).tolist() == [2, 3, 4, 0]


def test_the_reference_equals_a_hand_worked_case() -> None:
    zero = torch.zeros(2, 1, 1)
    v = torch.tensor([10.0, 20.0]).view(2, 1, 1)
    # The gap of 5 seconds is bucket 5 and adds ln 2; a distance of 1 adds ln 4, of -1 nothing, of 0 ln 3.
    times = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, math.log(2.0)]])
    bias = AttentionBias(times, torch.tensor([100, 105]), torch.tensor([[0.0, math.log(3.0), math.log(4.0)]]))
    both = jagged_attention(
        zero, zero, v, offsets_of([2]), causal=False, max_length=2, bias=bias, backend="reference"
    )
    # Query 0 weighs 3 : 2, query 1 weighs 8 : 3.
    torch.testing.assert_close(both.flatten(), torch.tensor([14.0, 140 / 11]))
    causal = AttentionBias(position_table=torch.log(torch.tensor([[3.0, 4.0]])))
    seen = jagged_attention(zero, zero, v, offsets_of([2]), causal=True, max_length=2, bias=causal)
    torch.testing.assert_close(seen.flatten(), torch.tensor([10.0, 100 / 7]))


@pytest.mark.parametrize("causal", [True, False])
def test_the_reference_has_right_gradients_tables_included(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(5, 2, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    tables = (torch.randn(2, n, dtype=torch.float64, generator=generator) for n in (9, 3))
    stamps = torch.tensor([3, 10, 12, 7, 7])
    leaves = [x.requires_grad_() for x in (q, k, v, *tables)]

    def run(q: Tensor, k: Tensor, v: Tensor, times: Tensor, positions: Tensor) -> Tensor:
        bias = AttentionBias(times, stamps, positions)
        return jagged_attention(q, k, v, offsets_of((3, 0, 2)), causal=causal, max_length=3, bias=bias)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("heads", "width", "buckets", "positions"),
    [(2, 16, 64, 15), (1, 33, 120, 0), (3, 8, 0, 401), (2, 32, 2, 3)],
)
def test_compiled_output_and_gradients_equal_the_reference(
    heads: int, width: int, buckets: int, positions: int, causal: bool, dropout_p: float
) -> None:
    case = _Case(LENGTHS, heads=heads, width=width, buckets=buckets, positions=positions)
    exact = case.run(causal=causal, dropout_p=dropout_p, backend="reference")
    _assert_close(case.run(causal=causal, dropout_p=dropout_p), exact)


@pytest.mark.parametrize("causal", [True, False])
def test_a_cut_sequence_among_short_ones_equals_the_reference(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_tasks, "WHOLE", 500)
    case = _Case((3, 700, 9), heads=1)
    _assert_close(case.run(causal=causal), case.run(causal=causal, backend="reference"))


@pytest.mark.parametrize("causal", [True, False])
def test_cutting_a_sequence_changes_no_bit_but_of_the_tables(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _Case((150, 7, 97))
    whole = case.run(causal=causal, dropout_p=0.2)
    monkeypatch.setattr(cpu_tasks, "WHOLE", 64)
    monkeypatch.setattr(cpu_tasks, "CUT", 32)
    cut = case.run(causal=causal, dropout_p=0.2)
    assert all(_same_bits(a, b) for a, b in zip(whole[:4], cut[:4], strict=True))
    _assert_close(cut[4:], [x.double() for x in whole[4:]])


def test_every_edge_of_every_bucket_is_looked_up_exactly() -> None:
    gaps = torch.tensor([*EDGES, MAX_GAP, MAX_GAP + 1, 2**40])
    for sign in (1, -1):
        # Sequences of two events with values 0 and 1: the second output is the weight of the first event.
        stamps = torch.stack((torch.full_like(gaps, 2**33), 2**33 + sign * gaps), 1).flatten()
        n = len(stamps)
        q, v = torch.zeros(n, 1, 8), torch.tensor([1.0, 0.0]).repeat(n // 2).view(n, 1, 1).expand(n, 1, 8)
        table = torch.linspace(-3, 3, MAX_BUCKETS)[None]
        found = jagged_attention(
            q, q, v, offsets_of([2] * (n // 2)), causal=True, max_length=2, bias=AttentionBias(table, stamps)
        )
        wanted = torch.sigmoid(table[0, time_bucket(gaps, MAX_BUCKETS)] - table[0, 0])
        torch.testing.assert_close(found[1::2, 0, 0], wanted, rtol=1e-6, atol=1e-7)
        assert len(wanted.unique()) == MAX_BUCKETS


def test_a_sequence_has_the_same_bits_alone_and_in_any_batch() -> None:
    case = _Case((45, 3, 80, 0, 12, 70))
    for causal in (True, False):
        together = case.run(causal=causal)[:4]
        for place, length in enumerate(case.lengths):
            at = sum(case.lengths[:place])
            alone = case.part(place, place + 1).run(causal=causal)[:4]
            assert all(_same_bits(a[at : at + length], b) for a, b in zip(together, alone, strict=True))


def test_a_nan_stays_in_its_own_sequence() -> None:
    case = _Case((5, 20, 6))
    clean = case.run()
    for x in case.events[:3]:
        x[7] = math.nan
    for a, b in zip(case.run()[:4], clean[:4], strict=True):
        assert torch.isnan(a[7]).all()
        assert _same_bits(a[:5], b[:5])
        assert _same_bits(a[25:], b[25:])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("causal", [True, False])
def test_runs_and_thread_counts_agree_bit_for_bit(causal: bool) -> None:
    case = _Case((600, 3, 250, 90, 400, 0, *range(1, 40)), width=32)
    runs = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        runs.append(case.run(causal=causal, dropout_p=0.1))
    for run in runs[1:]:
        assert all(_same_bits(a, b) for a, b in zip(run, runs[0], strict=True))


def test_large_entries_stay_finite_where_lanes_are_idle_or_masked() -> None:
    case = _Case((5, 40))
    case.tables = [None if x is None else x * 100 for x in case.tables]
    for causal in (True, False):
        ours = case.run(causal=causal)
        assert all(bool(torch.isfinite(x).all()) for x in ours)
        _assert_close(ours[:1], case.run(causal=causal, backend="reference")[:1], 1e-4)


def test_a_bias_of_zeros_is_no_bias() -> None:
    case = _Case((20, 3))
    case.tables = [torch.zeros(2, 64), None]
    q, k, v = case.events[:3]
    plain = jagged_attention(q, k, v, offsets_of((20, 3)), causal=True, max_length=20)
    torch.testing.assert_close(case.run()[0], plain)


def test_narrow_types_are_computed_in_float32() -> None:
    case = _Case((40, 3))
    case.events = [x.half().float() for x in case.events]
    case.tables = [None if x is None else x.half().float() for x in case.tables]
    ours = case.run(dtype=torch.float16)
    assert {x.dtype for x in ours} == {torch.float16}
    _assert_close(ours, case.run(backend="reference"), 2e-3)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_batches_without_events_have_gradients_of_zero(lengths: tuple[int, ...], backend: str) -> None:
    found = _Case(lengths).run(backend=backend)
    assert all(x.shape == (0, 2, 16) for x in found[:4])
    assert [x.tolist() for x in found[4:]] == [torch.zeros(2, n).tolist() for n in (64, 15)]


@pytest.mark.parametrize(("buckets", "positions"), [(9, 5), (9, 0), (0, 5)])
def test_the_registered_operation_passes_torch_checks(buckets: int, positions: int) -> None:
    case = _Case((5, 0, 3), width=32, buckets=buckets, positions=positions)
    q, k, v = (x.requires_grad_() for x in case.events[:3])
    by_time, by_position = (None if x is None else x.requires_grad_() for x in case.tables)
    bias = (by_time, None if by_time is None else case.stamps, by_position)
    torch.library.opcheck(cpu.forward.operator, (q, k, v, offsets_of((5, 0, 3)), True, 0.25, 0.0, 0, *bias))


def test_a_compiled_call_gives_the_same_bits() -> None:
    case = _Case((5, 0, 30))
    eager = case.run()
    compiled = torch.compile(jagged_attention, backend="aot_eager", fullgraph=True)
    leaves = [x.detach().requires_grad_() for x in (*case.events[:3], *case.tables) if x is not None]
    bias = AttentionBias(leaves[3], case.stamps, leaves[4])
    q, k, v = leaves[:3]
    out = compiled(q, k, v, offsets_of(case.lengths), causal=True, max_length=30, bias=bias)
    found = [out.detach(), *torch.autograd.grad(out, leaves, case.events[3])]
    assert all(_same_bits(a, b) for a, b in zip(found, eager, strict=True))


def test_steps_equal_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(7, 3, 8, generator=generator) for _ in range(3))
    times, positions = (torch.randn(3, n, generator=generator) for n in (40, 4))
    stamps = torch.randint(0, 100_000, (7,), generator=generator)
    bias = AttentionBias(times, stamps, positions)
    whole = jagged_attention(q, k, v, offsets_of([7]), causal=True, max_length=7, bias=bias)
    cache_length = 9
    k_cache, v_cache = (torch.full((1, cache_length, 3, 8), math.nan) for _ in range(2))
    cached = torch.full((1, cache_length), 2**40)
    for step in range(7):
        k_cache[0, step], v_cache[0, step], cached[0, step] = k[step], v[step], stamps[step]
        gap = (stamps[step] - cached).abs()
        distance = (step - torch.arange(cache_length))[None]
        added = added_scores(times, positions, gap=gap, distance=distance, causal=True).transpose(0, 1)
        found = attention_step(q[step, None], k_cache, v_cache, torch.tensor([step + 1]), added=added)
        torch.testing.assert_close(found[0], whole[step], rtol=1e-5, atol=1e-6)


def test_a_step_refuses_added_scores_of_another_shape() -> None:
    cache = torch.zeros(2, 4, 1, 8)
    with pytest.raises(ArgumentError, match=r"added is torch.float32 of shape \(2, 1, 5\)"):
        attention_step(torch.zeros(2, 1, 8), cache, cache, torch.tensor([1, 2]), added=torch.zeros(2, 1, 5))


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (AttentionBias(), "bias has no table"),
        (AttentionBias(torch.zeros(1, 4)), "go together"),
        (AttentionBias(timestamps=torch.zeros(5).long(), position_table=torch.zeros(1, 3)), "go together"),
        (AttentionBias(torch.zeros(2, 4), torch.zeros(5).long()), r"bias.time_table has shape \(2, 4\)"),
        (AttentionBias(torch.zeros(1, 121), torch.zeros(5).long()), "121 buckets, want at most 120"),
        (AttentionBias(torch.zeros(1, 4).long(), torch.zeros(5).long()), "bias.time_table is torch.int64"),
        (AttentionBias(torch.zeros(1, 4), torch.zeros(4).long()), r"want int64 \(5,\)"),
        (AttentionBias(torch.zeros(1, 4), torch.zeros(5)), "bias.timestamps is torch.float32"),
        (AttentionBias(position_table=torch.zeros(1, 0)), r"bias.position_table has shape \(1, 0\)"),
        (AttentionBias(position_table=torch.zeros(1, 4)), "4 positions, want an odd number"),
    ],
)
def test_a_wrong_bias_is_named_in_one_line(bias: AttentionBias, message: str) -> None:
    x = torch.zeros(5, 1, 8)
    with pytest.raises(ArgumentError, match=message) as caught:
        jagged_attention(x, x, x, offsets_of((5,)), causal=False, max_length=5, bias=bias)
    assert "\n" not in str(caught.value)
