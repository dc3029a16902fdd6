import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.embedding import HashedTable, item_vectors, merge_rows
from recsys.kernels.embedding.cpu_segments import TASK_EVENTS, segment_sum, sort_ids


def _zipf(m: int, v: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.zipf(1.3, m) % v)


@pytest.mark.parametrize("v", [1, 7, 2048, 2049, 5_000_000, 2**33])
def test_ids_are_grouped_as_a_stable_sort_groups_them(v: int) -> None:
    ids = torch.randint(0, v, (3000,), generator=torch.Generator().manual_seed(v % 97))
    segments = sort_ids(ids, v)
    assert segments.order.tolist() == np.argsort(ids.numpy(), kind="stable").tolist()
    distinct, counts = np.unique(ids.numpy(), return_counts=True)
    assert segments.ids.tolist() == distinct.tolist()
    assert np.diff(segments.starts).tolist() == counts.tolist()


def test_ids_out_of_range_are_named() -> None:
    for wrong in (-1, 5):
        with pytest.raises(ArgumentError, match=f"ids holds {wrong} and the table has 5 rows"):
            sort_ids(torch.tensor([0, wrong, 4]), 5)


@pytest.mark.parametrize("d", [1, 16, 50, 64])
@pytest.mark.parametrize("v", [3, 40, 4000])
def test_segments_are_summed(d: int, v: int) -> None:
    m = 2 * TASK_EVENTS + 5
    generator = torch.Generator().manual_seed(d)
    ids, rows = _zipf(m, v), torch.randn(m, d, generator=generator)
    segments = sort_ids(ids, v)
    exact = torch.zeros(v, d, dtype=torch.float64).index_add_(0, ids, rows.double())
    torch.testing.assert_close(
        segment_sum(segments, rows).double(), exact[segments.ids], rtol=1e-5, atol=1e-4
    )


def test_events_may_share_rows_and_coefficients() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 20, generator=generator)
    coefficients = torch.randn(5, 3, generator=generator)
    ids = torch.randint(0, 9, (5, 3, 2), generator=generator)
    segments = sort_ids(ids.reshape(-1), 9)
    found = segment_sum(segments, rows, per_row=6, coefficients=coefficients, per_coefficient=2)
    terms = (coefficients[:, :, None] * rows[:, None]).double()[:, :, None].expand(5, 3, 2, 20)
    exact = torch.zeros(9, 20, dtype=torch.float64).index_add_(0, ids.reshape(-1), terms.reshape(-1, 20))
    torch.testing.assert_close(found.double(), exact[segments.ids], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_threads")
def test_threads_and_neighbours_change_no_bit() -> None:
    ids, rows = _zipf(30_000, 5000), torch.randn(30_000, 64)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(segment_sum(sort_ids(ids, 5000), rows))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    segments = sort_ids(ids, 5000)
    mine = ids == 7
    single = segment_sum(sort_ids(ids[mine], 5000), rows[mine])
    assert torch.equal(single[0], found[0][segments.ids.tolist().index(7)])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_look_up_and_its_gradient_are_torchs(sparse: bool, backend: str) -> None:
    table = torch.randn(30, 24, requires_grad=True)
    ids, upstream = _zipf(200, 30), torch.randn(200, 24)
    found = item_vectors(table, ids, sparse=sparse, backend=backend)
    assert torch.equal(found, table[ids])
    (gradient,) = torch.autograd.grad(found, table, upstream)
    assert gradient.is_sparse == sparse
    (exact,) = torch.autograd.grad(F.embedding(ids, table), table, upstream)
    torch.testing.assert_close(gradient.to_dense(), exact)


def test_a_sparse_gradient_holds_the_touched_rows_alone() -> None:
    table = torch.randn(1000, 16, requires_grad=True)
    ids = torch.tensor([5, 900, 5, 17])
    (gradient,) = torch.autograd.grad(item_vectors(table, ids, sparse=True).sum(), table)
    assert gradient.is_coalesced()
    assert gradient.indices().tolist() == [[5, 17, 900]]
    assert gradient.values()[:, 0].tolist() == [2, 1, 1]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradients_of_several_uses_are_merged(backend: str) -> None:
    table = torch.nn.Parameter(torch.randn(50, 8))
    for seed in (0, 1):
        ids = _zipf(40, 50, seed)
        (item_vectors(table, ids, sparse=True) * ids[:, None]).sum().backward()
    assert table.grad is not None
    merged = merge_rows(table.grad, backend=backend)
    assert merged.is_coalesced()
    torch.testing.assert_close(merged.to_dense(), table.grad.to_dense())
    ids = merged.indices()[0]
    assert bool((ids[1:] > ids[:-1]).all())
    assert merge_rows(merged) is merged


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_hashed_item_is_the_sum_of_its_rows(sparse: bool, backend: str) -> None:
    weight = torch.randn(20 + 1, 16, requires_grad=True)
    items = HashedTable(weight, n_items=500, n_hashes=3, n_extra=1)
    ids = torch.tensor([0, 499, 7, 7, 500])
    rows = items.rows(ids)
    assert rows.shape == (5, 3)
    assert int(rows[:4].max()) < 20
    assert rows[4].tolist() == [20] * 3  # the extra item has a row to itself
    found = item_vectors(items, ids, sparse=sparse, backend=backend)
    torch.testing.assert_close(found, weight[rows].sum(1))
    upstream = torch.randn(5, 16)
    (gradient,) = torch.autograd.grad(found, weight, upstream)
    (exact,) = torch.autograd.grad(weight[rows].sum(1), weight, upstream)
    torch.testing.assert_close(gradient.to_dense(), exact)


def test_hash_functions_spread_items_evenly_and_independently() -> None:
    items = HashedTable(torch.zeros(64, 8), n_items=64_000, n_hashes=2)
    rows = items.rows(torch.arange(64_000))
    for j in (0, 1):
        counts = torch.bincount(rows[:, j], minlength=64).double()
        # 1,000 expected a row: five deviations are 157.
        assert float((counts - 1000).abs().max()) < 157
    pairs = torch.bincount(rows[:, 0] * 64 + rows[:, 1], minlength=4096).double()
    expected = 64_000 / 4096
    chi = float(((pairs - expected) ** 2 / expected).sum())
    assert abs(chi - 4095) < 5 * (2 * 4095) ** 0.5


def test_hashed_rows_never_change() -> None:
    # A saved table means nothing under other hash functions.
    rows = HashedTable(torch.zeros(1000, 8), n_items=10**7, n_hashes=2).rows(torch.tensor([0, 1, 9_999_999]))
    assert rows.tolist() == [[785, 493], [510, 854], [861, 884]]


def test_no_look_ups_give_no_rows() -> None:
    table = torch.randn(5, 8, requires_grad=True)
    for sparse in (False, True):
        found = item_vectors(table, torch.zeros(0, dtype=torch.int64), sparse=sparse)
        assert found.shape == (0, 8)
        (gradient,) = torch.autograd.grad(found.sum(), table)
        assert not gradient.to_dense().any()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="ids is torch.int32"):
        item_vectors(torch.zeros(3, 8), torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ArgumentError, match="table is torch.int64"):
        item_vectors(torch.zeros(3, 8, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
