import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.attention import AttentionBias, added_scores, attention_step, jagged_attention
from recsys.kernels.attention.bias import MAX_BUCKETS, MAX_GAP, relative_place, time_bucket


def _offsets(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def test_buckets_are_quarters_of_doublings() -> None:
    gaps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 2**30, MAX_GAP, MAX_GAP + 1, 2**62]
    wanted = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 116, 119, 119, 119]
    assert time_bucket(torch.tensor(gaps), MAX_BUCKETS).tolist() == wanted
    assert time_bucket(torch.tensor(gaps), 6).tolist() == [min(b, 5) for b in wanted]


def test_buckets_never_fall_and_miss_none() -> None:
    edges = sorted({max(0, n * 2**e // 4 + d) for e in range(31) for n in (4, 5, 6, 7) for d in (-1, 0, 1)})
    found = time_bucket(torch.tensor(edges), MAX_BUCKETS).tolist()
    assert found == sorted(found)
    assert set(found) == set(range(MAX_BUCKETS))


def test_places_are_clipped_distances() -> None:
    query, key = torch.tensor([5, 5, 5, 5]), torch.tensor([5, 4, 0, 9])
    assert relative_place(query, key, 3, True).tolist() == [0, 1, 2, 0]
    assert relative_place(query, key, 5, False).tolist() == [2, 3, 4, 0]


def test_the_reference_equals_a_hand_worked_case() -> None:
    zero = torch.zeros(2, 1, 1)
    v = torch.tensor([10.0, 20.0]).view(2, 1, 1)
    # The gap of 5 seconds is bucket 5 and adds ln 2; a distance of 1 adds ln 4, of -1 nothing, of 0 ln 3.
    times = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, math.log(2.0)]])
    bias = AttentionBias(times, torch.tensor([100, 105]), torch.tensor([[0.0, math.log(3.0), math.log(4.0)]]))
    both = jagged_attention(
        zero, zero, v, _offsets([2]), causal=False, max_length=2, bias=bias, backend="reference"
    )
    # Query 0 weighs 3 : 2, query 1 weighs 8 : 3.
    torch.testing.assert_close(both.flatten(), torch.tensor([14.0, 140 / 11]))
    causal = AttentionBias(position_table=torch.log(torch.tensor([[3.0, 4.0]])))
    seen = jagged_attention(zero, zero, v, _offsets([2]), causal=True, max_length=2, bias=causal)
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
        return jagged_attention(q, k, v, _offsets((3, 0, 2)), causal=causal, max_length=3, bias=bias)

    assert torch.autograd.gradcheck(run, leaves)


def test_steps_equal_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(7, 3, 8, generator=generator) for _ in range(3))
    times, places = (torch.randn(3, n, generator=generator) for n in (40, 4))
    stamps = torch.randint(0, 100_000, (7,), generator=generator)
    bias = AttentionBias(times, stamps, places)
    whole = jagged_attention(q, k, v, _offsets([7]), causal=True, max_length=7, bias=bias)
    cache_length = 9
    k_cache, v_cache = (torch.full((1, cache_length, 3, 8), math.nan) for _ in range(2))
    cached = torch.full((1, cache_length), 2**40)
    for step in range(7):
        k_cache[0, step], v_cache[0, step], cached[0, step] = k[step], v[step], stamps[step]
        gap = (stamps[step] - cached).abs()
        distance = (step - torch.arange(cache_length))[None]
        added = added_scores(times, places, gap=gap, distance=distance, causal=True).transpose(0, 1)
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
        (AttentionBias(position_table=torch.zeros(1, 4)), "4 places, want an odd number"),
    ],
)
def test_a_wrong_bias_is_named_in_one_line(bias: AttentionBias, message: str) -> None:
    x = torch.zeros(5, 1, 8)
    with pytest.raises(ArgumentError, match=message) as caught:
        jagged_attention(x, x, x, _offsets((5,)), causal=False, max_length=5, bias=bias)
    assert "\n" not in str(caught.value)
