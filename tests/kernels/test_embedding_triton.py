import pytest
import torch
from torch import Tensor

from recsys.kernels.embedding import HashedTable, item_vectors, merge_rows
from recsys.kernels.embedding.triton import table_gradient


def _ids(kind: str, m: int, v: int) -> Tensor:
    """Ids (M,) in which runs end at, before and behind the chunks of 32 events, or lie across many."""
    draws = torch.Generator().manual_seed(m)
    if kind == "one":
        return torch.full((m,), v // 2)
    ids = torch.randint(0, v, (m,), generator=draws)
    if kind == "popular":
        ids[torch.rand(m, generator=draws) < 0.7] = v - 1
    if kind == "chunks":
        ids = torch.arange(m) // 32 % v
    return ids[torch.randperm(m, generator=draws)]


@pytest.mark.parametrize("kind", ["uniform", "popular", "one", "chunks"])
@pytest.mark.parametrize(("m", "v", "d"), [(0, 5, 4), (1, 1, 3), (32, 9, 16), (65, 500, 20), (600, 40, 33)])
@pytest.mark.parametrize("sparse", [False, True])
def test_rows_are_added_up_by_id(
    kind: str, m: int, v: int, d: int, sparse: bool, device: torch.device
) -> None:
    ids, rows = _ids(kind, m, v), torch.randn(m, d, generator=torch.Generator().manual_seed(d))
    table = torch.zeros(v, d, device=device)
    found = table_gradient(table, ids.to(device), rows.to(device), sparse)
    exact = torch.zeros(v, d, dtype=torch.float64).index_add_(0, ids, rows.double())
    if sparse:
        assert found.is_coalesced()
        assert found._indices()[0].tolist() == ids.unique().tolist()
        found = found.to_dense()
    assert float((found.cpu() - exact).norm()) <= 1e-6 * float(exact.norm())
    assert torch.equal(found.cpu()[exact.abs().sum(1) == 0], torch.zeros_like(exact[exact.abs().sum(1) == 0]))
    again = table_gradient(table, ids.to(device), rows.to(device), sparse)
    assert torch.equal(again.to_dense() if sparse else again, found)


def test_events_may_share_rows_and_coefficients(device: torch.device) -> None:
    draws = torch.Generator().manual_seed(0)
    rows, coefficients = torch.randn(50, 20, generator=draws), torch.randn(50, 3, generator=draws)
    ids = torch.randint(0, 9, (50, 3, 2), generator=draws)
    found = table_gradient(
        torch.zeros(9, 20, device=device),
        ids.to(device),
        rows.to(device),
        False,
        per_row=6,
        coefficients=coefficients.to(device),
        per_coefficient=2,
    )
    terms = (coefficients[:, :, None] * rows[:, None]).double()[:, :, None].expand(50, 3, 2, 20)
    exact = torch.zeros(9, 20, dtype=torch.float64).index_add_(0, ids.reshape(-1), terms.reshape(-1, 20))
    assert float((found.cpu() - exact).norm()) <= 1e-6 * float(exact.norm())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_look_up_and_its_gradient_are_the_definitions(
    sparse: bool, hashed: bool, dtype: torch.dtype, device: torch.device
) -> None:
    draws = torch.Generator().manual_seed(3)
    weight = torch.randn(30, 24, generator=draws).to(device, dtype).requires_grad_()
    items = HashedTable(weight, 200, 3) if hashed else weight
    ids = torch.randint(0, 30, (150,), generator=draws).to(device)
    upstream = torch.randn(150, 24, generator=draws).to(device, dtype)
    found = item_vectors(items, ids, sparse=sparse, backend="triton")
    exact = item_vectors(items, ids, backend="reference")
    bound = 1e-6 if dtype == torch.float32 else 2e-3
    assert float((found - exact).detach().norm()) <= bound * float(exact.detach().norm())
    (ours,) = torch.autograd.grad(found, weight, upstream)
    (theirs,) = torch.autograd.grad(exact, weight, upstream)
    assert ours.dtype == dtype
    assert float((ours.to_dense().double() - theirs.double()).norm()) <= bound * float(theirs.double().norm())


def test_uses_of_one_table_are_merged(device: torch.device) -> None:
    ids = torch.tensor([[4, 1, 4, 0, 1]], device=device)
    rows = torch.arange(10.0, device=device).view(5, 2)
    gradient = torch.sparse_coo_tensor(ids, rows, (6, 2), check_invariants=True)
    merged = merge_rows(gradient, backend="triton")
    assert merged.is_coalesced()
    assert merged._indices()[0].tolist() == [0, 1, 4]
    assert torch.equal(merged._values(), torch.tensor([[6.0, 7.0], [10, 12], [4, 6]], device=device))
