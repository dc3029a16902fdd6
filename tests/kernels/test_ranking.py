import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking import rank_of_target, top_k
from recsys.kernels.shared.vector.tiles import tiles_available


@pytest.fixture(params=["prefiltered", "plain"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count for ranks by the matrix tiles whatever the number of rows, and without them."""
    from recsys.kernels.ranking import cpu, cpu_rank_prefilter_launch

    if request.param == "plain":
        monkeypatch.setattr(cpu, "prefilter_pays", lambda rows, width: False)
    elif not tiles_available():
        pytest.skip("this processor has no matrix tiles")
    else:
        monkeypatch.setattr(cpu_rank_prefilter_launch, "LEAST_ROWS", 1)


def _large(rows: int, items: int, width: int = 24) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Rows, a catalog of several blocks with tied items, and exclusions with repeats."""
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(items, width, generator=generator)
    weight[items // 2 :] = weight[: items - items // 2].clone()
    counts = torch.randint(0, 90, (rows,), generator=generator)
    ids = torch.randint(0, items, (int(counts.sum()),), generator=generator)
    return hidden, weight, (ids, torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0))))


def _case(seed: int, *, ties: bool) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """A random case; whole-number vectors make heavy and exact ties."""
    rng = np.random.default_rng(seed)
    b, v, d = int(rng.integers(1, 40)), int(rng.integers(1, 60)), int(rng.integers(1, 9))
    draw = (lambda *s: rng.integers(-2, 3, s)) if ties else (lambda *s: rng.normal(size=s))
    counts = rng.integers(0, 9, b)
    ids = rng.integers(0, v, int(counts.sum()))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return (
        torch.tensor(draw(b, d), dtype=torch.float32),
        torch.tensor(draw(v, d), dtype=torch.float32),
        torch.tensor(rng.integers(0, v, b)),
        (torch.tensor(ids), torch.tensor(offsets)),
    )


def _oracle_rank(scores: np.ndarray, target: int, excluded: set[int], ties: str) -> float:
    others = [s for i, s in enumerate(scores) if i != target and i not in excluded]
    above = sum(s > scores[target] for s in others)
    level = sum(s == scores[target] for s in others)
    return float(1 + above + {"optimistic": 0, "pessimistic": level, "average": level / 2}[ties])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "average"])
def test_ranks_equal_brute_force(backend: str, ties: str) -> None:
    for seed in range(100):
        hidden, weight, targets, exclude = _case(seed, ties=True)
        found = rank_of_target(hidden, weight, targets, exclude, ties=ties, backend=backend)
        scores = (hidden @ weight.T).numpy()
        for row, target in enumerate(targets.tolist()):
            excluded = set(exclude[0][exclude[1][row] : exclude[1][row + 1]].tolist())
            assert float(found.kept[row]) == _oracle_rank(scores[row], target, set(), ties)
            assert float(found.removed[row]) == _oracle_rank(scores[row], target, excluded, ties)


@pytest.mark.usefixtures("_each_way")
def test_ranks_equal_brute_force_in_a_thousand_cases() -> None:
    """Whole-number vectors: ties everywhere, and every backend's scores exact."""
    for seed in range(1000):
        hidden, weight, targets, exclude = _case(1000 + seed, ties=True)
        scores = hidden.double() @ weight.double().T
        excluded = torch.zeros(scores.shape, dtype=torch.bool)
        excluded[torch.repeat_interleave(torch.arange(len(hidden)), exclude[1].diff()), exclude[0]] = True
        others = torch.ones_like(excluded).scatter_(1, targets[:, None], False)
        own = scores.gather(1, targets[:, None])
        above, level = scores > own, (scores == own) & others
        ties = ("pessimistic", "optimistic", "average")[seed % 3]
        found = rank_of_target(hidden, weight, targets, exclude, ties=ties)
        for ranks, counted in ((found.kept, others), (found.removed, others & ~excluded)):
            weight_of_level = {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}[ties]
            expected = 1 + (above & counted).sum(1) + weight_of_level * (level & counted).sum(1)
            assert ranks.double().tolist() == expected.tolist()


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize(("rows", "items"), [(1, 50_021), (2, 50_021), (127, 1000), (127, 7), (4096, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ranks_and_lists_are_exact_at_real_sizes(rows: int, items: int, dtype: torch.dtype) -> None:
    """Against float64: whole-number products below 2^24 have no rounding in any order of summing."""
    generator = torch.Generator().manual_seed(items + rows)
    hidden = torch.randint(-6, 7, (rows, 64), generator=generator).to(dtype)
    weight = torch.randint(-9, 10, (items, 64), generator=generator).to(dtype)
    scores = (hidden.float() @ weight.float().T).numpy()
    k = min(items, 100)
    found = top_k(hidden, weight, k)
    keys = scores.astype(np.int64) * items - np.arange(items)
    best = -np.sort(np.partition(-keys, k - 1, axis=1)[:, :k], axis=1)
    ids = (-best) % items
    assert np.array_equal(found.ids.numpy(), ids)
    assert np.array_equal(found.scores.numpy(), np.take_along_axis(scores, ids, axis=1))
    targets = torch.randint(0, items, (rows,), generator=generator)
    own = np.take_along_axis(scores, targets.numpy()[:, None], axis=1)
    assert rank_of_target(hidden, weight, targets).kept.tolist() == (scores >= own).sum(1).tolist()


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 16, 17, 33, 49])
@pytest.mark.parametrize("width", [1, 16, 50, 64, 65])
def test_every_way_of_scoring_gives_the_same_bits(rows: int, width: int) -> None:
    hidden, weight, _ = _large(60, 1003, width)
    every = top_k(hidden, weight, 20)
    found = top_k(hidden[:rows], weight, 20)
    assert torch.equal(found.scores.view(torch.int32), every.scores[:rows].view(torch.int32))
    assert torch.equal(found.ids, every.ids[:rows])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-6, 1e15, 1e18])
def test_one_row_is_exact_whatever_the_size_of_its_numbers(scale: float) -> None:
    """Items near each other, so that a careless margin would drop one; sizes near the ends of float32."""
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(1, 64, generator=generator)
    weight = base + 1e-6 * torch.randn(3000, 64, generator=generator)
    for hidden, items in ((base * scale, weight), (base, weight * scale)):
        single = top_k(hidden, items, 50)
        batch = top_k(hidden.repeat(40, 1), items, 50)
        assert torch.equal(single.ids[0], batch.ids[7])
        assert torch.equal(single.scores[0], batch.scores[7])


@pytest.mark.parametrize("rows", [1, 3, 20, 40])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -3e38])
def test_a_single_score_that_is_not_finite_is_found_in_every_form(rows: int, value: float) -> None:
    hidden, weight = torch.full((rows, 24), 2.0), torch.full((700, 24), -1.0)
    weight[:100] = 1.0  # a bar that no later item comes near
    weight[651, 9] = value
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        top_k(hidden, weight, 3)


@pytest.mark.parametrize("rows", [1, 40])
def test_scores_near_the_largest_float_are_answered(rows: int) -> None:
    weight = torch.arange(1.0, 301.0)[:, None] * 1e36
    found = top_k(torch.ones(rows, 1), weight, 2)
    assert found.ids.tolist() == [[299, 298]] * rows


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("rows", [1, 40])
def test_lists_are_the_same_by_flags_and_by_a_copy(share: float, rows: int) -> None:
    """Few closed items are flags behind the threshold, many make a copy of the open ones."""
    hidden, weight, exclude = _large(rows, 2000)
    generator = torch.Generator().manual_seed(3)
    deny = torch.randperm(2000, generator=generator)[: int(share * 2000)]
    allowed_items = torch.ones(2000, dtype=torch.bool)
    allowed_items[deny] = False
    every = top_k(hidden, weight, 2000, exclude)
    denied = top_k(hidden, weight, 30, exclude, deny=deny)
    allowed = top_k(hidden, weight, 30, exclude, candidates=allowed_items.nonzero()[:, 0])
    for found in (denied, allowed):
        for row in range(rows):
            kept = [i for i in every.ids[row].tolist() if i >= 0 and allowed_items[i]][:30]
            assert found.ids[row].tolist() == kept + [-1] * (30 - len(kept))


def test_exclusion_lists_of_every_length_are_put_in_order() -> None:
    from recsys.kernels.ranking.cpu_top_k_exclude import distinct_lists

    rng = np.random.default_rng(0)
    for items in (1, 63, 64, 65, 5000):
        lengths = np.array([0, 1, 2, 24, 25, 200, 0, 3])
        lists = [rng.integers(0, items, n) for n in lengths]
        lists[3].sort()
        ids, offsets = distinct_lists(np.concatenate(lists), np.append(0, np.cumsum(lengths)), items)
        for row, given in enumerate(lists):
            assert ids[offsets[row] : offsets[row + 1]].tolist() == sorted(set(given.tolist()))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_top_k_equals_a_stable_sort(backend: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(150):
        hidden, weight, _, exclude = _case(seed, ties=seed % 3 > 0)
        v = len(weight)
        k = int(rng.integers(1, v + 5))
        allowed = rng.integers(0, v, int(rng.integers(0, v + 1))) if seed % 2 else None
        candidates = None if allowed is None else torch.tensor(allowed)
        denied = rng.integers(0, v, int(rng.integers(0, v + 1))) if seed % 3 else None
        deny = None if denied is None else torch.tensor(denied)
        found = top_k(hidden, weight, k, exclude, candidates=candidates, deny=deny, backend=backend)
        scores = (hidden @ weight.T).numpy()
        for row in range(len(hidden)):
            excluded = set(exclude[0][exclude[1][row] : exclude[1][row + 1]].tolist())
            excluded |= set() if denied is None else set(denied.tolist())
            allowed_items = [i for i in range(v) if i not in excluded and (allowed is None or i in allowed)]
            best = sorted(allowed_items, key=lambda i: (-scores[row, i], i))[:k]
            assert found.ids[row].tolist() == best + [-1] * (k - len(best))
            tail = found.scores[row, len(best) :]
            assert (tail == float("-inf")).all()
            np.testing.assert_allclose(
                found.scores[row, : len(best)], scores[row, best], rtol=1e-5, atol=1e-5
            )


@pytest.mark.usefixtures("_each_way")
def test_ranks_agree_with_top_k_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.kernels.ranking import cpu

    monkeypatch.setattr(cpu, "MOST_ROWS", 30)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(77, 24, generator=generator)
    weight = torch.randn(3000, 24, generator=generator)
    best = top_k(hidden, weight, 3)
    for place in range(3):
        ranks = rank_of_target(hidden, weight, best.ids[:, place].contiguous())
        assert ranks.kept.tolist() == [place + 1] * 77


@pytest.mark.usefixtures("_threads", "_each_way")
@pytest.mark.parametrize("rows", [1, 5, 70, 300])
def test_neither_threads_nor_neighbours_change_an_answer(rows: int) -> None:
    hidden, weight, exclude = _large(rows, 3001)
    targets = torch.arange(rows) * 7
    answers = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        ranks = rank_of_target(hidden, weight, targets, exclude)
        answers.append((*ranks, *top_k(hidden, weight, 40, exclude)))
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, answers[0], strict=True))
    kept, removed, scores, ids = answers[0]
    for row in (0, rows // 2, rows - 1):
        part = slice(row, row + 1)
        own = exclude[0][exclude[1][row] : exclude[1][row + 1]]
        single = own, torch.tensor([0, len(own)])
        ranks = rank_of_target(hidden[part], weight, targets[part], single)
        assert (int(ranks.kept), int(ranks.removed)) == (int(kept[row]), int(removed[row]))
        best = top_k(hidden[part], weight, 40, single)
        assert torch.equal(best.scores[0], scores[row])
        assert torch.equal(best.ids[0], ids[row])


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize("width", [16, 24, 64])
def test_exclusions_and_ties_over_many_blocks_equal_the_compiled_scores(width: int) -> None:
    hidden, weight, exclude = _large(90, 1700, width)
    every = top_k(hidden, weight, 1700)
    scores = torch.empty(90, 1700).scatter_(1, every.ids, every.scores).numpy()
    np.testing.assert_allclose(scores, (hidden.double() @ weight.double().T).numpy(), atol=3e-5)
    targets = torch.randint(0, 1700, (90,), generator=torch.Generator().manual_seed(0))
    best = top_k(hidden, weight, 300, exclude)
    ranks = rank_of_target(hidden, weight, targets, exclude)
    for row, target in enumerate(targets.tolist()):
        excluded = set(exclude[0][exclude[1][row] : exclude[1][row + 1]].tolist())
        assert int(ranks.kept[row]) == _oracle_rank(scores[row], target, set(), "pessimistic")
        assert int(ranks.removed[row]) == _oracle_rank(scores[row], target, excluded, "pessimistic")
        allowed_items = [i for i in range(1700) if i not in excluded]
        assert best.ids[row].tolist() == sorted(allowed_items, key=lambda i: (-scores[row, i], i))[:300]


def test_the_scores_never_exist_at_once(sizes: list[int]) -> None:
    """Neither among torch's tensors nor among numpy's arrays, which the kernels get."""
    hidden, weight, exclude = _large(500, 3001)

    def ranked() -> None:
        rank_of_target(hidden, weight, torch.zeros(500, dtype=torch.int64), exclude)
        top_k(hidden, weight, 10, exclude)

    ranked()  # compiling takes memory of its own
    sizes.clear()
    tracemalloc.start()
    try:
        ranked()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(sizes, default=0) < 500 * 3001 // 10
    assert peak < 4 * 500 * 3001 // 3


def test_exclusions_outside_the_candidates_do_nothing() -> None:
    hidden, weight = torch.ones(1, 1), torch.arange(6.0).view(6, 1)
    exclude = torch.tensor([5, 0, 3]), torch.tensor([0, 3])
    found = top_k(hidden, weight, 3, exclude, candidates=torch.tensor([4, 3, 1, 4]))
    assert found.ids.tolist() == [[4, 1, -1]]


def test_memory_layout_does_not_matter() -> None:
    hidden, weight, (ids, offsets) = _large(20, 600)
    targets = torch.arange(20)
    plain = (*rank_of_target(hidden, weight, targets, (ids, offsets)), *top_k(hidden, weight, 9))
    hidden_, weight_ = hidden.T.contiguous().T, weight.T.contiguous().T
    ids_, targets_ = torch.stack((ids, ids), 1)[:, 0], torch.stack((targets, targets), 1)[:, 0]
    odd = (*rank_of_target(hidden_, weight_, targets_, (ids_, offsets)), *top_k(hidden_, weight_, 9))
    assert all(torch.equal(a, b) for a, b in zip(plain, odd, strict=True))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_scored_in_float32(dtype: torch.dtype, backend: str) -> None:
    hidden, weight, _ = _large(20, 600)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    found = top_k(hidden, weight, 5, backend=backend)
    exact = top_k(hidden.float(), weight.float(), 5, backend=backend)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.scores, exact.scores)
    assert torch.equal(found.ids, exact.ids)


@pytest.mark.usefixtures("_each_way")
def test_a_target_never_outranks_itself() -> None:
    generator = torch.Generator().manual_seed(1)
    for rows in (1, 3, 16, 100):
        hidden = torch.randn(rows, 64, generator=generator)
        weight = torch.randn(5000, 64, generator=generator)
        best = (hidden.double() @ weight.double().T).argmax(1)
        assert rank_of_target(hidden, weight, best).kept.tolist() == [1] * rows


@pytest.mark.usefixtures("_each_way")
def test_the_target_stays_a_candidate_when_it_is_excluded() -> None:
    hidden, weight = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]])
    exclude = (torch.tensor([0, 1, 1]), torch.tensor([0, 3]))
    ranks = rank_of_target(hidden, weight, torch.tensor([1]), exclude)
    assert (ranks.kept.tolist(), ranks.removed.tolist()) == ([2], [1])


@pytest.mark.usefixtures("_each_way")
def test_a_constant_scorer_ranks_last_by_default() -> None:
    ranks = rank_of_target(torch.zeros(2, 4), torch.ones(10, 4), torch.tensor([0, 9]))
    assert ranks.kept.tolist() == [10, 10]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_scores_that_are_not_finite_are_refused(value: float, backend: str) -> None:
    hidden, weight = torch.ones(3, 4), torch.ones(10, 4)
    weight[7, 0] = value
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        rank_of_target(hidden, weight, torch.tensor([0, 1, 2]), backend=backend)
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        top_k(hidden, weight, 2, backend=backend)


def test_the_environment_can_do_without_the_matrix_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_TILES", "0")
    assert not tiles_available.__wrapped__()


def test_no_rows_give_no_ranks() -> None:
    ranks = rank_of_target(torch.zeros(0, 4), torch.ones(10, 4), torch.zeros(0, dtype=torch.int64))
    assert ranks.kept.shape == (0,)
    assert top_k(torch.zeros(0, 4), torch.ones(10, 4), 3).ids.shape == (0, 3)


def test_nobody_is_answered_where_nothing_is_allowed() -> None:
    found = top_k(torch.ones(2, 4), torch.ones(10, 4), 3, candidates=torch.zeros(0, dtype=torch.int64))
    assert found.ids.tolist() == [[-1, -1, -1]] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, w: rank_of_target(h, w, torch.tensor([0, 99, 1])), "targets holds 99"),
        (lambda h, w: rank_of_target(h, w, torch.tensor([0])), "targets is"),
        (lambda h, w: rank_of_target(h, w[:, :2], torch.tensor([0, 1, 2])), "item_weight has shape"),
        (lambda h, w: rank_of_target(h, w, torch.tensor([0, 1, 2]), ties="best"), "ties is 'best'"),
        (lambda h, w: top_k(h, w, 0), "k is 0"),
        (lambda h, w: top_k(h, w, 1, (torch.tensor([1]), torch.tensor([0, 1]))), "exclude offsets"),
        (lambda h, w: top_k(h, w, 1, candidates=torch.tensor([10])), "candidates holds 10"),
        (lambda h, w: top_k(h, w, 1, deny=torch.tensor([-1])), "deny holds -1"),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call(torch.ones(3, 4), torch.ones(10, 4))  # type: ignore[operator]
