import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live import LiveIndex
from recsys.retrieval.merging import merge_best
from recsys.retrieval.new_items import blend

Catalog = dict[int, NDArray[np.float32]]


def brute(
    catalog: Catalog, queries: NDArray[np.float32], k: int, excluded: list[set[int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    for row, query in enumerate(queries):
        scored = {i: float(query @ v) for i, v in catalog.items() if i not in excluded[row]}
        best = sorted(scored, key=lambda i: (-scored[i], i))[:k]
        ids[row, : len(best)] = best
        scores[row, : len(best)] = [scored[i] for i in best]
    return scores, ids


def whole(rng: np.random.Generator, n: int, d: int = 4) -> NDArray[np.float32]:
    return rng.integers(-3, 4, (n, d)).astype(np.float32)


def start(n: int = 30, kind: str = "exact", **options: Any) -> tuple[LiveIndex, Catalog]:
    vectors = whole(np.random.default_rng(0), n)
    options = {"rebuild_share": None} | options
    live = LiveIndex(ItemIndex.build(vectors, kind=kind, fingerprint="f"), **options)
    return live, {i: vectors[i] for i in range(n)}


@pytest.mark.parametrize("seed", range(4))
def test_any_run_of_updates_answers_as_a_fresh_index_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    live, catalog = start()
    for step in range(40):
        new = rng.choice(60, rng.integers(0, 5), replace=False)
        old = np.setdiff1d(rng.choice(60, rng.integers(0, 5), replace=False), new)
        vectors = whole(rng, len(new))
        live.update(add=(new, vectors), remove=old)
        catalog |= dict(zip(new.tolist(), vectors, strict=True))
        catalog = {i: v for i, v in catalog.items() if i not in set(old.tolist())}
        if step % 7 == 3:
            live.rebuild()
        queries = whole(rng, 3)
        seen = [rng.choice(60, rng.integers(0, 30), replace=False).tolist() for _ in range(3)]
        deny, allow = rng.choice(60, 5).tolist(), rng.choice(60, 50).tolist()
        exclude = np.concatenate([np.array(s, dtype=np.int64) for s in seen]), np.cumsum([0, *map(len, seen)])
        found = live.search(queries, 8, exclude=exclude, deny=deny, allow=allow)
        excluded = [set(s) | set(deny) | (set(range(60)) - set(allow)) for s in seen]
        scores, ids = brute(catalog, queries, 8, excluded)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.scores, scores)
        assert live.snapshot().ids.tolist() == sorted(catalog)


def test_searches_during_two_hundred_updates_and_rebuilds_each_see_one_version() -> None:
    live, catalog = start(rebuild_share=0.0, rebuild_least=15)
    rng = np.random.default_rng(7)
    contents = {0: dict(catalog)}
    bases = {live.snapshot().number}
    done, met = threading.Event(), list[int]()
    queries = whole(rng, 2)

    def search_until_done() -> list[Any]:
        replies = []
        while not done.is_set():
            replies.append(live.search(queries, 10))
            met.append(replies[-1].version)
        return replies

    def wait_for_a_search_of(number: int) -> None:
        while max(met, default=-1) < number and not any(future.done() for future in searching):
            time.sleep(0.001)

    def record(number: int) -> None:
        # A rebuild makes a version with the same contents.
        for missing in range(max(contents) + 1, number):
            contents[missing] = contents[missing - 1]
            bases.add(missing)
        contents[number] = dict(catalog)

    with ThreadPoolExecutor(4) as pool:
        searching = [pool.submit(search_until_done) for _ in range(4)]
        for turn in range(200):
            new = rng.choice(60, 3, replace=False)
            old = np.setdiff1d(rng.choice(60, 3, replace=False), new)
            vectors = whole(rng, 3)
            catalog |= dict(zip(new.tolist(), vectors, strict=True))
            catalog = {i: v for i, v in catalog.items() if i not in set(old.tolist())}
            record(live.update(add=(new, vectors), remove=old))
            if turn % 8 == 0:
                wait_for_a_search_of(max(contents))
        live.wait()
        done.set()
        replies = [reply for future in searching for reply in future.result()]
    record(live.snapshot().number + 1)
    assert len(bases) > 3, "no rebuild took place in between"
    assert len({reply.version for reply in replies}) > 20
    truth = {n: brute(c, queries, 10, [set(), set()]) for n, c in contents.items()}
    for reply in replies:
        np.testing.assert_array_equal(reply.ids, truth[reply.version][1])
        np.testing.assert_array_equal(reply.scores, truth[reply.version][0])


def test_changes_made_during_a_rebuild_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = start()
    live.update(add=([100], np.full((1, 4), 9.0)), remove=[0, 1])
    like = ItemIndex.like

    def slow(self: ItemIndex, vectors: Any, *, kind: str | None = None) -> ItemIndex:
        if kind is None:
            monkeypatch.setattr(ItemIndex, "like", like)
            live.update(add=([0, 101], np.array([[8.0] * 4, [7.0] * 4])), remove=[100, 2])
        return like(self, vectors, kind=kind)

    monkeypatch.setattr(ItemIndex, "like", slow)
    live.rebuild()
    version = live.snapshot()
    assert version.ids.tolist() == [0, *range(3, 30), 101]
    assert version.base_ids.tolist() == [*range(2, 30), 100]
    found = live.search(np.ones((1, 4), dtype=np.float32), 2)
    assert found.ids.tolist() == [[0, 101]]
    assert found.scores.tolist() == [[32.0, 28.0]]


def test_a_snapshot_stays_as_it_was() -> None:
    live, catalog = start()
    before = live.snapshot()
    query = np.ones((1, 4), dtype=np.float32)
    old = before.search(query, 5)
    live.update(add=([500], np.full((1, 4), 50.0)), remove=list(range(20)))
    live.rebuild()
    np.testing.assert_array_equal(before.search(query, 5).ids, old.ids)
    assert live.search(query, 1).ids.tolist() == [[500]]
    np.testing.assert_array_equal(before.vectors(np.array([3, 1])), [catalog[3], catalog[1]])


def test_many_changes_call_for_a_new_base() -> None:
    live, _ = start(rebuild_share=0.5, rebuild_least=1)
    live.update(remove=range(10))
    assert live.snapshot().base.n_items == 30
    live.update(remove=range(10, 16))
    live.wait()
    version = live.snapshot()
    assert version.base.n_items == 14
    assert len(version.gone) == 0


def test_a_failed_rebuild_is_told_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = start(rebuild_share=0.0, rebuild_least=1)

    def broken(self: ItemIndex, vectors: Any, *, kind: str | None = None) -> ItemIndex:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(ItemIndex, "like", broken)
        live.update(remove=[1])
        live.wait()
    assert 1 not in live.snapshot().ids
    with pytest.raises(MemoryError, match="no room"):
        live.update(remove=[2])
    live.update(remove=[2])
    live.wait()
    assert live.snapshot().base.n_items == 28


def test_cosine_takes_additions_of_any_length() -> None:
    vectors = np.array([[3.0, 0], [0, 2]])
    live = LiveIndex(ItemIndex.build(vectors, kind="exact", metric="cosine", fingerprint="f"), [5, 9])
    live.update(add=([7], np.array([[10.0, 10]])))
    found = live.search(np.array([[1.0, 1.0]]), 3)
    assert found.ids.tolist() == [[7, 5, 9]]
    np.testing.assert_allclose(found.scores, [[1, 0.5**0.5, 0.5**0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("is added twice", {"add": ([3, 3], np.zeros((2, 4)))}),
        ("both added and removed", {"add": ([3], np.zeros((1, 4))), "remove": [3]}),
        ("add vectors has shape", {"add": ([3], np.zeros((1, 5)))}),
        ("holds NaN", {"add": ([3], np.full((1, 4), np.nan))}),
        ("add ids holds -1", {"add": ([-1], np.zeros((1, 4)))}),
        ("the last items cannot go", {"remove": range(30)}),
    ],
)
def test_a_bad_update_is_refused_and_changes_nothing(words: str, change: dict[str, Any]) -> None:
    live, _ = start()
    with pytest.raises(ArgumentError, match=words):
        live.update(**change)
    assert live.snapshot().number == 0
    with pytest.raises(ArgumentError, match="ascending"):
        LiveIndex(live.snapshot().base, range(29))
    with pytest.raises(ArgumentError, match="item 77 is not in the catalog"):
        live.snapshot().vectors(np.array([77]))


def test_merging_keeps_each_item_once_with_its_best_score() -> None:
    def part(scores: list[float], ids: list[int]) -> Any:
        return np.array([scores], dtype=np.float32), np.array([ids])

    scores, ids = merge_best([part([5, 3], [4, 2]), part([4, -np.inf], [2, -1]), part([3], [1])], 4)
    assert ids.tolist() == [[4, 2, 1, -1]]
    assert scores.tolist() == [[5, 4, 3, -np.inf]]


def test_a_new_items_vector_is_a_mean_of_known_ones() -> None:
    known = np.array([[1.0, 0], [0, 1]])
    assert blend(known).tolist() == [0.5, 0.5]
    assert blend(known, [3, 1]).tolist() == [0.75, 0.25]
    for vectors, weights in ((known[:0], None), (known, [1]), (known, [1, 0])):
        with pytest.raises(ArgumentError):
            blend(vectors, weights)


def test_a_category_of_a_changing_catalog_never_answers_what_is_gone() -> None:
    """Sub-indexes are kept by the base: what came and went since must not be answered from them."""
    pytest.importorskip("faiss")
    live, catalog = start(n=200, kind="flat")
    rng = np.random.default_rng(3)
    allowed, others = np.arange(0, 200, 2), np.arange(1, 200, 4)
    queries = whole(rng, 2)
    for step in range(30):
        new = rng.choice(200, 4, replace=False)
        old = np.setdiff1d(rng.choice(200, 4, replace=False), new)
        vectors = whole(rng, 4)
        live.update(add=(new, vectors), remove=old)
        catalog |= dict(zip(new.tolist(), vectors, strict=True))
        catalog = {i: v for i, v in catalog.items() if i not in set(old.tolist())}
        if step % 9 == 5:
            live.rebuild()
        for allow in (allowed, others):
            found = live.search(queries, 8, allow=allow)
            excluded = set(range(200)) - set(allow.tolist())
            scores, ids = brute(catalog, queries, 8, [excluded, excluded])
            np.testing.assert_array_equal(found.ids, ids)
            np.testing.assert_array_equal(found.scores, scores)
