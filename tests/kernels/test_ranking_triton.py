import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from recsys.errors import ArgumentError
from recsys.kernels.ranking import rank_of_target, top_k, triton, triton_plan, triton_top_k_launch
from recsys.kernels.shared.launching import Config

Case = tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and longer programs: the interpreter runs them one by one."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(triton_plan, "PROGRAMS", 6)


def _case(device: torch.device, seed: int, b: int, v: int, d: int, *, ties: bool, most: int = 9) -> Case:
    """Random rows, items, targets and exclusions; whole-number vectors make heavy and exact ties."""
    rng = np.random.default_rng(seed)
    draw = (lambda *s: rng.integers(-2, 3, s)) if ties else (lambda *s: rng.normal(size=s))
    counts = rng.integers(0, most, b)
    ids = rng.integers(0, v, int(counts.sum()))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return (
        torch.tensor(draw(b, d), dtype=torch.float32, device=device),
        torch.tensor(draw(v, d), dtype=torch.float32, device=device),
        torch.tensor(rng.integers(0, v, b), device=device),
        (torch.tensor(ids, device=device), torch.tensor(offsets, device=device)),
    )


def _excluded(exclude: tuple[Tensor, Tensor], row: int) -> set[int]:
    ids, offsets = exclude
    return set(ids[int(offsets[row]) : int(offsets[row + 1])].tolist())


def _oracle_rank(scores: Tensor, target: int, excluded: set[int], ties: str) -> float:
    mine = scores[target]
    allowed_items = torch.ones(len(scores), dtype=torch.bool)
    allowed_items[[target, *excluded]] = False
    above, level = int((scores[allowed_items] > mine).sum()), int((scores[allowed_items] == mine).sum())
    return 1 + above + {"optimistic": 0, "pessimistic": level, "average": level / 2}[ties]


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "average"])
@pytest.mark.parametrize(
    ("b", "v", "d"), [(1, 7, 8), (40, 7, 48), (127, 300, 8), (3, 1021, 64), (70, 130, 100), (5, 200, 320)]
)
def test_ranks_equal_brute_force(device: torch.device, b: int, v: int, d: int, ties: str) -> None:
    hidden, items, targets, exclude = _case(device, b + v, b, v, d, ties=True, most=60)
    found = rank_of_target(hidden, items, targets, exclude, ties=ties, backend="triton")
    plain = rank_of_target(hidden, items, targets, ties=ties, backend="triton")
    scores = (hidden @ items.T).cpu()
    for row, target in enumerate(targets.tolist()):
        assert float(found.kept[row]) == _oracle_rank(scores[row], target, set(), ties)
        assert float(found.removed[row]) == _oracle_rank(scores[row], target, _excluded(exclude, row), ties)
    assert torch.equal(plain.kept, found.kept)
    assert torch.equal(plain.removed, found.kept)
    assert found.kept.dtype == (torch.float64 if ties == "average" else torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("d", [8, 48, 100, 320])
def test_a_target_has_the_bits_of_its_place_in_the_count(
    device: torch.device, d: int, dtype: torch.dtype
) -> None:
    rows = 70
    hidden, items, targets, _ = _case(device, d, rows, 200, d, ties=False)
    (above, level, _, _), _ = triton.count(hidden.to(dtype), items.to(dtype), targets, None)
    assert level.tolist() == [1] * rows  # itself, and nobody else
    best = (hidden.to(dtype).double() @ items.to(dtype).double().T).argsort(1, descending=True)
    ranks = rank_of_target(hidden.to(dtype), items.to(dtype), best[:, 4].contiguous(), backend="triton")
    assert ranks.kept.tolist() == [5] * rows
    assert above.dtype == torch.int64


def _best(scores: Tensor, allowed: set[int], excluded: set[int], k: int) -> list[int]:
    """Ids by (score falling, id rising), -1 where none is left."""
    allowed_items = torch.tensor(sorted(allowed - excluded), dtype=torch.int64)
    best: list[int] = allowed_items[scores[allowed_items].argsort(descending=True, stable=True)[:k]].tolist()
    return best + [-1] * (k - len(best))


def _whole(rng: np.random.Generator, device: torch.device, b: int, v: int, d: int) -> tuple[Tensor, Tensor]:
    """Rows and items whose scores are exact in float32 but not in TF32, which cuts 3 bits of an item's 14."""
    hidden = torch.tensor(rng.integers(-3, 4, (b, d)), dtype=torch.float32, device=device)
    return hidden, torch.tensor(rng.integers(-(2**14), 2**14, (v, d)), dtype=torch.float32, device=device)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("case", range(6))
def test_top_k_equals_a_stable_sort(
    device: torch.device, case: int, every: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """k below about two fifths of the tiles has them prefiltered, above it all scores are made."""
    monkeypatch.setattr(triton_top_k_launch, "SPARE", 1)
    monkeypatch.setattr(triton_top_k_launch, "_TOGETHER", 2)
    rng = np.random.default_rng(case)
    v = int(rng.integers(550, 700))
    k = int(rng.integers(40, v + 5)) if every else int(rng.integers(1, 4))
    rows = 5 if every else 3
    hidden, items, _, exclude = _case(device, case, rows, v, 8, ties=True, most=300)
    if case % 3 == 0:
        hidden, items = _whole(rng, device, rows, v, 8)
    candidates = torch.tensor(rng.integers(0, v, v)) if case % 2 else None
    deny = torch.tensor(rng.integers(0, v, v // 4)) if case % 3 else None
    assert len(triton_top_k_launch.precisions(hidden.dtype, k, v)) == (1 if every else 3)
    found = top_k(
        hidden,
        items,
        k,
        exclude,
        candidates=None if candidates is None else candidates.to(device),
        deny=None if deny is None else deny.to(device),
        backend="triton",
    )
    scores = (hidden.double() @ items.double().T).cpu()
    allowed = set(range(v)) if candidates is None else set(candidates.tolist())
    allowed -= set() if deny is None else set(deny.tolist())
    for row in range(rows):
        best = _best(scores[row], allowed, _excluded(exclude, row), k)
        assert found.ids[row].tolist() == best
        there = sum(i >= 0 for i in best)
        assert (found.scores[row, there:] == -math.inf).all()
        assert torch.equal(found.scores[row, :there].cpu().double(), scores[row, best[:there]])


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "ieee"])
@pytest.mark.parametrize("d", [3, 64, 200])
def test_no_true_score_exceeds_its_tiles_bound(device: torch.device, d: int, precision: str) -> None:
    rng = np.random.default_rng(d)
    rows, v, tile = 17, 150, triton_top_k_launch.TILE
    dtype, span = (torch.float16, 1) if precision == "ieee" else (torch.float32, 4)
    hidden, items = (
        torch.tensor(rng.normal(size=(n, d)) * 10 ** rng.uniform(-span, span, (n, 1)), dtype=dtype)
        for n in (rows, v)
    )
    hidden, items = hidden.to(device), items.to(device)
    items[3] = hidden[2]  # nothing cancels: the error is as large as it gets
    catalog = triton_top_k_launch.Catalog(None, None, v)
    config = triton_top_k_launch.prefilter_config(hidden, precision)
    bounds, faults = triton_top_k_launch.bound_tiles(hidden, items, catalog, None, precision, config)
    scores = (hidden.double() @ items.double().T).cpu()
    lengths = hidden.double().norm(dim=1).cpu()[:, None] * items.double().norm(dim=1).cpu()
    for tile_at, own in enumerate(range(0, v, tile)):
        most, reach = scores[:, own : own + tile], lengths[:, own : own + tile]
        assert (bounds[:, tile_at].cpu().double() >= most.amax(1)).all()
        most_bound = (most + 2.01 * triton_top_k_launch.relative_error(precision, d) * reach).amax(1)
        assert (bounds[:, tile_at].cpu().double() <= most_bound).all()
    assert not faults.any()


@pytest.mark.parametrize(("rows_by", "items_by"), [(0, -120), (-75, -75), (-120, 20), (60, -135)])
def test_bounds_hold_for_vectors_whose_squares_vanish(
    device: torch.device, rows_by: int, items_by: int
) -> None:
    """float32 has no square of a number below 2^-75."""
    rng = np.random.default_rng(0)
    hidden, items = (
        torch.tensor(rng.normal(size=(n, 8)), dtype=torch.float32, device=device).ldexp(torch.tensor(by))
        for n, by in ((5, rows_by), (150, items_by))
    )
    catalog = triton_top_k_launch.Catalog(None, None, 150)
    config = triton_top_k_launch.prefilter_config(hidden, "tf32")
    bounds, _ = triton_top_k_launch.bound_tiles(hidden, items, catalog, None, "tf32", config)
    scores = (hidden.double() @ items.double().T).cpu()
    for tile_at, own in enumerate(range(0, 150, triton_top_k_launch.TILE)):
        most = scores[:, own : own + triton_top_k_launch.TILE].amax(1)
        assert (bounds[:, tile_at].cpu().double() >= most).all()


def test_rows_that_a_screen_leaves_in_doubt_are_asked_again(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_top_k_launch, "SPARE", 1)
    rounds: list[tuple[str | None, int]] = []
    asked = triton_top_k_launch.select

    def counted(*args: Any) -> triton_top_k_launch.Found:
        rounds.append((args[5], len(args[0])))
        return asked(*args)

    monkeypatch.setattr(triton_top_k_launch, "select", counted)
    v = 700
    items = torch.zeros(v, 4, device=device)
    items[:, 0] = torch.linspace(1, 2, v, device=device)  # apart
    items[:, 1] = 1 + torch.arange(v, device=device).flip(0) * 2.0**-16  # closer than TF32 can tell
    items[:, 2] = 1.0  # equal
    hidden = torch.eye(4, device=device)[[2, 0, 1, 2, 0]]
    ids, offsets = torch.tensor([0, 0, 1, 699, 2]), torch.tensor([0, 1, 1, 3, 4, 5])
    exclude = ids.to(device), offsets.to(device)
    found = top_k(hidden, items, 2, exclude, backend="triton")
    assert rounds == [("tf32", 5), ("tf32x3", 3), (None, 2)]
    assert found.ids.tolist() == [[1, 2], [699, 698], [2, 3], [0, 1], [699, 698]]
    assert torch.equal(found.scores, (hidden @ items.T).gather(1, found.ids))


def test_an_answer_has_the_same_bits_by_any_way(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_top_k_launch, "SPARE", 1)
    hidden, items, _, exclude = _case(device, 7, 9, 380, 70, ties=False)
    catalog = triton_top_k_launch.Catalog(None, None, 380)
    ways = [
        triton_top_k_launch.select(hidden, items, 1, exclude, catalog, precision)
        for precision in ("tf32", "tf32x3", None)
    ]
    for way in ways[:2]:
        sure = way.unsure == 0
        assert sure.sum() >= 5
        assert torch.equal(way.scores[sure], ways[2].scores[sure])
        assert torch.equal(way.ids[sure], ways[2].ids[sure])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_large_catalog_gives_its_best(device: torch.device, dtype: torch.dtype) -> None:
    v = 50_021 if device.type == "cuda" else 3_001
    hidden, items, _, exclude = _case(device, 0, 3, v, 8, ties=False, most=100)
    hidden, items = hidden.to(dtype), items.to(dtype)
    found = top_k(hidden, items, 4, exclude, backend="triton")
    exact = top_k(hidden.double(), items.double(), 4, exclude, backend="reference")
    assert torch.equal(found.ids, exact.ids)
    ranks = rank_of_target(hidden, items, found.ids[:, 3].contiguous(), exclude, backend="triton")
    assert ranks.removed.tolist() == [4] * 3


def test_ranks_agree_with_top_k(device: torch.device) -> None:
    hidden, items, _, _ = _case(device, 1, 20, 600, 24, ties=False)
    best = top_k(hidden, items, 3, backend="triton")
    for place in range(3):
        ranks = rank_of_target(hidden, items, best.ids[:, place].contiguous(), backend="triton")
        assert ranks.kept.tolist() == [place + 1] * 20


@pytest.mark.parametrize("k", [1, 30])
def test_neither_cuts_nor_neighbours_change_an_answer(
    device: torch.device, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, v = 35, 300
    monkeypatch.setattr(triton_top_k_launch, "SPARE", 1)
    assert len(triton_top_k_launch.precisions(torch.float32, k, v)) == (3 if k == 1 else 1)
    hidden, items, targets, exclude = _case(device, 2, rows, v, 8, ties=False, most=90)
    items[v // 2 :] = items[: v - v // 2].clone()

    def run(part: slice) -> list[Tensor]:
        ids = [sorted(_excluded(exclude, row)) for row in range(rows)[part]]
        flat = torch.tensor([i for own in ids for i in own], dtype=torch.int64, device=device)
        offsets = torch.tensor([0, *np.cumsum([len(own) for own in ids])], device=device)
        ranks = rank_of_target(hidden[part], items, targets[part], (flat, offsets), backend="triton")
        return [*ranks, *top_k(hidden[part], items, k, (flat, offsets), backend="triton")]

    whole = run(slice(None))
    for row in (0, 34):
        single = run(slice(row, row + 1))
        assert all(torch.equal(a, b[row : row + 1]) for a, b in zip(single, whole, strict=True))
    monkeypatch.setattr(triton_top_k_launch, "WORKSPACE", 1)
    monkeypatch.setattr(triton_plan, "PROGRAMS", 3)
    small = Config(blocks={"BLOCK_B": 16, "BLOCK_D": 16})
    monkeypatch.setattr(triton_top_k_launch, "prefilter_config", lambda *args: small)
    assert all(torch.equal(a, b) for a, b in zip(run(slice(None)), whole, strict=True))


def test_many_exclusions_in_one_tile_and_repeats(device: torch.device) -> None:
    hidden = torch.ones(2, 1, device=device)
    items = torch.arange(200.0, device=device).flip(0)[:, None].contiguous()
    ids = torch.cat((torch.arange(100).repeat(2), torch.arange(200))).to(device)
    exclude = ids, torch.tensor([0, 200, 400], device=device)
    found = top_k(hidden, items, 3, exclude, backend="triton")
    assert found.ids.tolist() == [[100, 101, 102], [-1, -1, -1]]
    ranks = rank_of_target(hidden, items, torch.tensor([150, 150], device=device), exclude, backend="triton")
    assert ranks.kept.tolist() == [151, 151]
    assert ranks.removed.tolist() == [51, 1]  # the target stays, though the second row excludes it


def test_zeros_of_either_sign_are_tied(device: torch.device) -> None:
    hidden = torch.tensor([[1.0]], device=device)
    items = torch.tensor([[-1.0], [-0.0], [0.0], [-0.0], [1.0]], device=device)
    assert top_k(hidden, items, 5, backend="triton").ids.tolist() == [[4, 1, 2, 3, 0]]


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("item", [0, 69, 129])
def test_scores_that_are_not_finite_are_refused(device: torch.device, item: int, value: float) -> None:
    hidden, items = torch.ones(3, 4, device=device), torch.ones(130, 4, device=device)
    items[item, 0] = value
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        rank_of_target(hidden, items, torch.tensor([0, 1, 2], device=device), backend="triton")
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        top_k(hidden, items, 2, backend="triton")


def test_nobody_is_answered_where_nothing_is_allowed(device: torch.device) -> None:
    hidden, items = torch.ones(2, 4, device=device), torch.ones(10, 4, device=device)
    nothing, everything = torch.zeros(0, dtype=torch.int64, device=device), torch.arange(10, device=device)
    for candidates, deny in ((nothing, None), (None, everything), (nothing, nothing)):
        found = top_k(hidden, items, 3, candidates=candidates, deny=deny, backend="triton")
        assert found.ids.tolist() == [[-1, -1, -1]] * 2
        assert (found.scores == -math.inf).all()
    assert top_k(hidden, items, 2, deny=nothing, backend="triton").ids.tolist() == [[0, 1]] * 2


def test_a_target_that_is_no_item_is_refused(device: torch.device) -> None:
    hidden, items = torch.ones(2, 4, device=device), torch.ones(10, 4, device=device)
    with pytest.raises(ArgumentError, match="ids in"):
        triton.rank_of_target(hidden, items, torch.tensor([3, 10], device=device), None, ties="average")


def test_no_rows_give_no_ranks(device: torch.device) -> None:
    hidden, items = torch.zeros(0, 4, device=device), torch.ones(10, 4, device=device)
    targets = torch.zeros(0, dtype=torch.int64, device=device)
    assert rank_of_target(hidden, items, targets, backend="triton").kept.shape == (0,)
    assert top_k(hidden, items, 3, backend="triton").ids.shape == (0, 3)


def test_the_scores_never_exist_at_once(device: torch.device, sizes: list[int]) -> None:
    v = 10_000
    hidden, items, targets, exclude = _case(device, 3, 17, v, 4, ties=False)
    sizes.clear()
    rank_of_target(hidden, items, targets, exclude, backend="triton")
    top_k(hidden, items, 1, exclude, backend="triton")
    assert sizes
    assert max(sizes) <= 17 * v // 10


def test_memory_layout_does_not_matter(device: torch.device) -> None:
    hidden, items, targets, _ = _case(device, 4, 20, 300, 8, ties=False)
    plain = (
        *rank_of_target(hidden, items, targets, backend="triton"),
        *top_k(hidden, items, 9, backend="triton"),
    )
    turned, table = hidden.T.contiguous().T, items.T.contiguous().T
    goals = torch.stack((targets, targets), 1)[:, 0]
    odd = (
        *rank_of_target(turned, table, goals, backend="triton"),
        *top_k(turned, table, 9, backend="triton"),
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, odd, strict=True))
