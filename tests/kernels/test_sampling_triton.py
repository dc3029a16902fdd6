import pytest
import torch

from recsys.kernels.sampling import draw_negatives, draw_shared, popularity_sampler, uniform_sampler

# Half of all draws meet the most popular item: every attempt and the last resort are taken.
SAMPLERS = {
    "uniform": uniform_sampler(50_021),
    "two": uniform_sampler(2),
    "popularity": popularity_sampler(torch.tensor([9_000, 1, 0, 30, 200, 4_000, 77])),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("rows", "count", "seed"), [(200, 1, 0), (130, 3, -1), (33, 16, 12_345), (9, 50, 2**64 - 3), (2, 600, 7)]
)
def test_draws_are_those_of_the_definition(
    name: str, rows: int, count: int, seed: int, device: torch.device
) -> None:
    sampler = SAMPLERS[name].to(device)
    draws = torch.Generator().manual_seed(1)
    targets = torch.randint(0, sampler.n_items, (rows,), generator=draws).to(device)
    targets[: rows // 2] = 0
    for first_row in (0, 5_000_000_000):
        want = draw_negatives(sampler, targets, count, seed, first_row=first_row, backend="reference")
        drawn = draw_negatives(sampler, targets, count, seed, first_row=first_row, backend="triton")
        assert torch.equal(drawn, want)
    shared = draw_shared(sampler, count, seed, device=device, backend="triton")
    assert torch.equal(shared, draw_shared(sampler, count, seed, device=device, backend="reference"))


def test_no_rows_draw_nothing(device: torch.device) -> None:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assert draw_negatives(SAMPLERS["uniform"], none, 5, 0, backend="triton").shape == (0, 5)
