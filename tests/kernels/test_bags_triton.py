import pytest
import torch

from recsys.kernels.bags import bag_vectors, transpose
from recsys.kernels.bags.layout import PIECE
from tests.kernels.tensors import assert_near, offsets_of


@pytest.mark.parametrize("lengths", [(3, 0, 1, 17, 0), (5,), (0, 0), (), (1, PIECE + 40, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("width", "dtype"), [(3, torch.float32), (16, torch.float32), (70, torch.float16)])
def test_sums_and_their_gradient_are_the_definitions(
    lengths: tuple[int, ...], weighted: bool, width: int, dtype: torch.dtype, device: torch.device
) -> None:
    draws = torch.Generator().manual_seed(width + len(lengths))
    offsets = offsets_of(lengths).long()
    rows = torch.randint(0, 3, (sum(lengths),), generator=draws)
    weights = torch.randn(len(rows), generator=draws) if weighted else None
    table = torch.randn(4, width, generator=draws).to(dtype)
    upstream = torch.randn(len(lengths), width, generator=draws).to(dtype)
    there = table.to(device).requires_grad_()
    factors = None if weights is None else weights.to(device)
    places = offsets.to(device), rows.to(device), factors
    found = bag_vectors(there, *places, backend="triton")
    exact = table.double().requires_grad_()
    wanted = bag_vectors(exact, offsets, rows, weights)
    (ours,) = torch.autograd.grad(found, there, upstream.to(device))
    (theirs,) = torch.autograd.grad(wanted, exact, upstream.double())
    assert found.dtype == ours.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 1e-3
    assert_near([found.detach().cpu(), ours.cpu()], [wanted.detach(), theirs], bound)
    assert not ours[3].any()  # a row of no bag
    again = bag_vectors(there, *places, transposed=transpose(*places, 4), backend="triton")
    assert torch.equal(again, found)
    assert torch.equal(torch.autograd.grad(again, there, upstream.to(device))[0], ours)


def test_a_bag_has_the_same_bits_among_others(device: torch.device) -> None:
    draws = torch.Generator().manual_seed(5)
    table = torch.randn(20, 33, generator=draws).to(device)
    rows = torch.randint(0, 20, (60,), generator=draws).to(device)
    weights = torch.randn(60, generator=draws).to(device)
    offsets = torch.tensor([0, 9, 9, 50, 60], device=device)
    found = bag_vectors(table, offsets, rows, weights, backend="triton")
    alone = bag_vectors(
        table, torch.tensor([0, 41], device=device), rows[9:50], weights[9:50], backend="triton"
    )
    assert torch.equal(alone[0], found[2])
