import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.bags import bag_vectors, transpose
from recsys.kernels.bags.cpu import _tasks
from recsys.kernels.bags.layout import PIECE
from tests.kernels.tensors import assert_near, offsets_of

LENGTHS = {
    "jagged": (3, 0, 1, 7, 0, 0, 2, 5),
    "one": (6,),
    "empty": (0, 0),
    "huge": (2, 3 * PIECE + 5, 1, 0),
    "none": (),
}


def _bags(lengths: tuple[int, ...], rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, rows (the first of them in a third of all places) and weights of fresh bags."""
    draws = torch.Generator().manual_seed(seed)
    entries = sum(lengths)
    ids = torch.randint(0, rows, (entries,), generator=draws)
    ids[torch.rand(entries, generator=draws) < 1 / 3] = 0
    return offsets_of(lengths).long(), ids.int(), torch.randn(entries, generator=draws)


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [1, 16, 50, 64])
def test_sums_and_their_gradient_are_the_definitions(kind: str, weighted: bool, width: int) -> None:
    offsets, rows, weights = _bags(LENGTHS[kind], 9, seed=width)
    draws = torch.Generator().manual_seed(width)
    table = torch.randn(9, width, generator=draws).requires_grad_()
    upstream = torch.randn(len(offsets) - 1, width, generator=draws)
    factors = weights if weighted else None
    ours = bag_vectors(table, offsets, rows, factors, backend="cpu")
    exact = table.detach().double().requires_grad_()
    theirs = bag_vectors(exact, offsets, rows, factors)
    (d_ours,) = torch.autograd.grad(ours, table, upstream)
    (d_theirs,) = torch.autograd.grad(theirs, exact, upstream.double())
    assert_near([ours.detach(), d_ours], [theirs.detach(), d_theirs], 2e-6)


def test_the_definition_is_what_embedding_bag_gives() -> None:
    offsets, rows, weights = _bags(LENGTHS["jagged"], 5)
    table = torch.randn(5, 8, dtype=torch.float64)
    bag = F.embedding_bag(
        rows.long(), table, offsets, mode="sum", per_sample_weights=weights.double(), include_last_offset=True
    )
    torch.testing.assert_close(bag_vectors(table, offsets, rows, weights), bag)


def test_a_bag_of_known_rows() -> None:
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]], requires_grad=True)
    offsets, rows = torch.tensor([0, 2, 2, 5]), torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([1.0, 0.5, 2.0, 3.0, -1.0])
    found = bag_vectors(table, offsets, rows, weights)
    assert found.tolist() == [[3.0, 30.0], [0.0, 0.0], [9.0, 90.0]]
    (gradient,) = torch.autograd.grad(found, table, torch.tensor([[1.0, 0.0], [7.0, 7.0], [0.0, 1.0]]))
    assert gradient.tolist() == [[1.0, -1.0], [0.0, 5.0], [0.5, 0.0]]


@pytest.mark.usefixtures("_threads")
def test_threads_and_neighbours_change_no_bit() -> None:
    lengths = tuple(int(n) for n in torch.randint(0, 30, (4000,), generator=torch.Generator().manual_seed(1)))
    offsets, rows, weights = _bags(lengths, 500)
    table, upstream = torch.randn(500, 40, requires_grad=True), torch.randn(len(lengths), 40)
    found = []
    for threads in (1, 2, 3, 3):
        torch.set_num_threads(threads)
        sums = bag_vectors(table, offsets, rows, weights)
        found.append((sums.detach(), torch.autograd.grad(sums, table, upstream)[0]))
    for sums, gradient in found[1:]:
        assert torch.equal(sums, found[0][0])
        assert torch.equal(gradient, found[0][1])
    begin, end = int(offsets[77]), int(offsets[78])
    alone = bag_vectors(table, torch.tensor([0, end - begin]), rows[begin:end], weights[begin:end])
    assert torch.equal(alone[0], found[0][0][77])


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_transposed_form_made_before_gives_the_same_bits(kind: str) -> None:
    offsets, rows, weights = _bags(LENGTHS[kind], 9)
    table, upstream = torch.randn(9, 20, requires_grad=True), torch.randn(len(offsets) - 1, 20)
    by_row = transpose(offsets, rows, weights, 9).to(torch.device("cpu"))
    gradients = [
        torch.autograd.grad(bag_vectors(table, offsets, rows, weights, transposed=form), table, upstream)[0]
        for form in (by_row, None)
    ]
    assert torch.equal(*gradients)
    # Every entry is in one piece of its row, and no piece is longer than it may be.
    assert int(by_row.piece_offsets.diff().max()) <= PIECE
    ends = by_row.piece_offsets[by_row.row_offsets]
    assert ends.diff().tolist() == torch.bincount(rows, minlength=9).tolist()


def test_most_rows_may_be_in_no_bag() -> None:
    # More rows than entries: pieces that do not exist must be nobody's work.
    rows = torch.tensor([9_000, 3, 9_000, 11_999, 0])
    table = torch.zeros(12_000, 20, requires_grad=True)
    found = bag_vectors(table, torch.tensor([0, 2, 5]), rows)
    (gradient,) = torch.autograd.grad(found, table, torch.ones(2, 20) * torch.tensor([[1.0], [10.0]]))
    assert gradient.sum(1).nonzero().flatten().tolist() == [0, 3, 9_000, 11_999]
    assert gradient[[0, 3, 9_000, 11_999], 7].tolist() == [10, 1, 11, 10]
    for bags in ([0] * 9_000 + [3], [3] + [0] * 9_000, [1] * 5_000, [0] * 5_000):
        offsets = offsets_of(bags).long()
        tasks = _tasks(offsets.numpy())
        assert tasks[0] == 0
        assert tasks[-1] == len(bags)
        assert (np.diff(tasks) > 0).all()
        assert len(tasks) > 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_narrow_tables_are_rounded_once(dtype: torch.dtype) -> None:
    offsets, rows, weights = _bags(LENGTHS["jagged"], 9)
    table = torch.randn(9, 24).to(dtype).requires_grad_()
    found = bag_vectors(table, offsets, rows, weights, backend="cpu")
    wide = table.detach().float().requires_grad_()
    exact = bag_vectors(wide, offsets, rows, weights, backend="cpu")
    assert torch.equal(found, exact.to(dtype))
    upstream = torch.randn(8, 24).to(dtype)
    (gradient,) = torch.autograd.grad(found, table, upstream)
    (wanted,) = torch.autograd.grad(exact, wide, upstream.float())
    assert torch.equal(gradient, wanted.to(dtype))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"table": torch.zeros(3, dtype=torch.float32)}, r"table is torch.float32 \(3,\), want floating"),
        ({"table": torch.zeros(3, 2, dtype=torch.int64)}, "table is torch.int64"),
        ({"rows": torch.zeros(4)}, "rows is torch.float32"),
        ({"rows": torch.tensor([0, 1, 3, 0])}, "rows holds 3 and the table has 3 rows"),
        ({"rows": torch.tensor([0, 1, -1, 0])}, "rows holds -1 and the table has 3 rows"),
        ({"offsets": torch.tensor([0, 3, 2, 4])}, "offsets falls from 3 to 2 at index 2"),
        ({"offsets": torch.tensor([0, 5])}, r"offsets runs from 0 to 5, want 0 to 4"),
        ({"offsets": torch.tensor([0.0, 4.0])}, "offsets has dtype torch.float32"),
        ({"weights": torch.ones(3)}, r"weights is torch.float32 \(3,\), want float32 \(4,\)"),
        ({"weights": torch.ones(4, dtype=torch.float64)}, "weights is torch.float64"),
        ({"weights": torch.ones(4, requires_grad=True)}, "weights asks for a gradient"),
        ({"transposed": 4}, "transposed is of a table of 4 rows, want 3"),
        ({"transposed": 3, "rows": torch.tensor([0]), "offsets": torch.tensor([0, 1, 1])}, "with 4 entries"),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, object], words: str) -> None:
    offsets, rows = torch.tensor([0, 2, 4]), torch.tensor([0, 1, 2, 0])
    arguments: dict[str, object] = {"table": torch.zeros(3, 2), "offsets": offsets, "rows": rows} | changed
    if isinstance(changed.get("transposed"), int):
        arguments["transposed"] = transpose(offsets, rows, None, int(str(changed["transposed"])))
    with pytest.raises(ArgumentError, match=words):
        bag_vectors(**arguments)  # type: ignore[arg-type]
