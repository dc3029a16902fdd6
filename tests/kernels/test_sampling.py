import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.sampling import (
    NegativeSampler,
    draw_in_batch,
    draw_negatives,
    draw_shared,
    log_expected_count,
    popularity_sampler,
    uniform_sampler,
)
from recsys.kernels.sampling.reference import TRIES
from recsys.kernels.shared.random_words import mix, scaled

V = 12
COUNTS = np.array([0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 400])
SAMPLERS = {"uniform": uniform_sampler(V), "popularity": popularity_sampler(COUNTS, 0.75)}


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> NegativeSampler:
    return SAMPLERS[request.param]


def _targets(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (n,), generator=torch.Generator().manual_seed(seed))


def _assert_distributed(drawn: Tensor, expected: Tensor) -> None:
    """Chi-square of counts against expected shares; 99.99% of right samplers pass."""
    n = drawn.numel()
    counts = torch.bincount(drawn.flatten(), minlength=V).double()
    possible = expected > 0
    assert not counts[~possible].any()
    chi = float(((counts - n * expected)[possible] ** 2 / (n * expected[possible])).sum())
    freedom = int(possible.sum()) - 1
    # Wilson and Hilferty's approximation of the quantile at 3.719 deviations.
    bound = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi < bound


def test_splitmix64_gives_its_published_words() -> None:
    # The first outputs of SplitMix64 seeded with 1234567 (Rosetta Code's and Java's test values).
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + gamma * i) % 2**64 for i in (1, 2, 3)]
    words = mix(torch.tensor([s - 2**64 if s >= 2**63 else s for s in states]))
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(w) % 2**64 for w in words] == expected


def test_scaling_is_the_128_bit_product() -> None:
    words = torch.tensor([0, 1, -1, -(2**63), 2**63 - 1, 0x123456789ABCDEF])
    for n in (1, 2, 7, 1_000_003, 2**31 - 1):
        whole, rest = scaled(words, n)
        for word, a, b in zip(words.tolist(), whole.tolist(), rest.tolist(), strict=True):
            product = (word % 2**64) * n
            assert (a, b) == (product >> 64, (product % 2**64) >> 32)


def test_backends_draw_the_same(sampler: NegativeSampler) -> None:
    targets = _targets(300)
    compiled, reference = (draw_negatives(sampler, targets, 7, 99, backend=b) for b in ("cpu", "reference"))
    assert torch.equal(compiled, reference)
    for seed in (0, -3, 2**63 + 5):
        both = [draw_shared(sampler, 50, seed, backend=b) for b in ("cpu", "reference")]
        assert torch.equal(*both)


def test_draws_depend_on_seed_row_and_draw_alone(sampler: NegativeSampler) -> None:
    targets = _targets(200)
    whole = draw_negatives(sampler, targets, 9, 5)
    assert torch.equal(whole, draw_negatives(sampler, targets, 9, 5))
    assert torch.equal(whole[80:], draw_negatives(sampler, targets[80:], 9, 5, first_row=80))
    assert torch.equal(whole[:, :4], draw_negatives(sampler, targets, 4, 5))
    assert not torch.equal(whole, draw_negatives(sampler, targets, 9, 6))
    assert torch.equal(draw_shared(sampler, 20, 5)[:8], draw_shared(sampler, 8, 5))
    assert not torch.equal(draw_shared(sampler, 20, 5), draw_shared(sampler, 20, 6))


@pytest.mark.usefixtures("_threads")
def test_threads_change_nothing(sampler: NegativeSampler) -> None:
    targets = _targets(20_000)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(draw_negatives(sampler, targets, 8, 1))
    assert torch.equal(*found)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_row_never_draws_its_own_target(sampler: NegativeSampler, backend: str) -> None:
    targets = _targets(2000)
    drawn = draw_negatives(sampler, targets, 20, 3, backend=backend)
    assert not (drawn == targets[:, None]).any()
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < V


@pytest.mark.parametrize("target", [0, 5, V - 1])
def test_draws_follow_the_stated_probability(sampler: NegativeSampler, target: int) -> None:
    targets = torch.full((2000,), target)
    everything = torch.arange(V)[None]
    q = log_expected_count(sampler, everything, 1, targets[:1]).double().exp()[0]
    q[target] = 0.0
    assert float(q.sum()) == pytest.approx(1, abs=1e-6)
    _assert_distributed(draw_negatives(sampler, targets, 50, 17), q)


def test_shared_draws_follow_the_distribution(sampler: NegativeSampler) -> None:
    q = log_expected_count(sampler, torch.arange(V), 1).double().exp()
    _assert_distributed(draw_shared(sampler, 100_000, 8), q / q.sum())


def test_popularity_is_the_power_of_counts() -> None:
    for power in (0.0, 0.5, 1.0, -1.0):
        mass = np.maximum(COUNTS, 1) ** float(power)
        sampler = popularity_sampler(COUNTS, power)
        # A threshold is rounded to 2^-32 of a slot.
        np.testing.assert_allclose(sampler.probability.numpy(), mass / mass.sum(), atol=V * 2.0**-32)
        assert float(sampler.probability.sum()) == pytest.approx(1, abs=1e-12)


def test_an_item_that_is_nearly_everything_still_is_never_its_own_negative() -> None:
    counts = np.ones(V, dtype=np.int64)
    counts[4] = 10**9
    sampler = popularity_sampler(counts)
    targets = torch.full((3000,), 4)
    # All tries find the target, so that the uniform draw decides.
    assert float(sampler.probability[4]) ** TRIES > 0.99
    drawn = draw_negatives(sampler, targets, 10, 0)
    assert torch.equal(drawn, draw_negatives(sampler, targets, 10, 0, backend="reference"))
    q = log_expected_count(sampler, torch.arange(V)[None], 1, targets[:1]).double().exp()[0]
    q[4] = 0.0
    assert float(q.sum()) == pytest.approx(1, abs=1e-6)
    _assert_distributed(drawn, q)


def test_a_large_table_keeps_its_mass() -> None:
    counts = (1e6 / np.arange(1, 100_001)).astype(np.int64)
    sampler = popularity_sampler(counts, 1.0)
    mass = np.maximum(counts, 1)
    np.testing.assert_allclose(sampler.probability.numpy(), mass / mass.sum(), rtol=1e-4)


def test_expected_counts_grow_with_the_draws(sampler: NegativeSampler) -> None:
    ids = torch.arange(V)
    once, often = (log_expected_count(sampler, ids, k) for k in (1, 40))
    torch.testing.assert_close(often, once + math.log(40))


def test_in_batch_negatives_are_targets_of_distinct_rows() -> None:
    targets = torch.arange(1000) + 5000
    drawn = draw_in_batch(targets, 100, 3)
    assert drawn.shape == (100,)
    assert len(drawn.unique()) == 100
    assert set(drawn.tolist()) <= set(targets.tolist())
    assert torch.equal(drawn, draw_in_batch(targets, 100, 3))
    assert not torch.equal(drawn, draw_in_batch(targets, 100, 4))
    assert torch.equal(draw_in_batch(targets, 1000, 0), targets)
    assert torch.equal(draw_in_batch(targets, 5000, 0), targets)


def test_in_batch_negatives_come_from_every_row_equally_often() -> None:
    targets = torch.arange(V)
    drawn = torch.cat([draw_in_batch(targets, 3, seed) for seed in range(4000)])
    _assert_distributed(drawn, torch.full((V,), 1 / V, dtype=torch.float64))


def test_no_rows_are_no_draws(sampler: NegativeSampler) -> None:
    for backend in ("cpu", "reference"):
        assert draw_negatives(sampler, _targets(0), 4, 1, backend=backend).shape == (0, 4)


def test_two_items_leave_one_negative() -> None:
    drawn = draw_negatives(uniform_sampler(2), torch.tensor([0, 1, 0]), 3, 1)
    assert drawn.tolist() == [[1] * 3, [0] * 3, [1] * 3]


def test_wrong_arguments_are_named() -> None:
    sampler = SAMPLERS["uniform"]
    with pytest.raises(ArgumentError, match="count is 0"):
        draw_negatives(sampler, _targets(3), 0, 1)
    with pytest.raises(ArgumentError, match="targets is torch.int32"):
        draw_negatives(sampler, _targets(3).int(), 1, 1)
    with pytest.raises(ArgumentError, match="one item has no negative"):
        draw_negatives(uniform_sampler(1), torch.zeros(2, dtype=torch.int64), 1, 1)
    with pytest.raises(ArgumentError, match="0 items"):
        uniform_sampler(0)
    with pytest.raises(ArgumentError, match="lowest count is -1"):
        popularity_sampler(np.array([3, -1]))
    with pytest.raises(ArgumentError, match="counts is float64"):
        popularity_sampler(np.array([3.0]))
    with pytest.raises(ArgumentError, match="power is inf"):
        popularity_sampler(COUNTS, math.inf)
    with pytest.raises(ArgumentError, match="use .to()"):
        draw_shared(SAMPLERS["popularity"], 3, 0, device="meta")
