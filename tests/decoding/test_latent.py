import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.decoding.latent import Datastore, latent_vectors, mix, reservoir, spread_ratio
from recsys.decoding.local_latent import LocalLatent
from recsys.errors import ArgumentError
from recsys.retrieval.item_index import ItemIndex


def memory(n_items: int = 6, n: int = 40, d: int = 4, seed: int = 0) -> Datastore:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n, d)).astype(np.float32)
    return Datastore(torch.from_numpy(states), rng.integers(0, n_items - 1, n), n_items)


def test_the_global_vector_of_an_item_is_the_mean_of_its_states() -> None:
    states = torch.tensor([[1.0, 0], [3, 0], [0, 5]])
    small = Datastore(states, np.array([2, 2, 0]), 3)
    assert small.means().tolist() == [[0, 5], [0, 0], [2, 0]]
    assert small.counts().tolist() == [1, 0, 2]
    vectors = latent_vectors(small)
    assert vectors[[0, 2]].tolist() == [[0, 5], [2, 0]]
    # Item 1 followed nothing: it stands behind the others wherever the query is.
    index = ItemIndex.build(vectors, kind="exact", metric="l2", fingerprint="f")
    queries = np.random.default_rng(0).standard_normal((50, 2))
    queries *= 5 / np.linalg.norm(queries, axis=1, keepdims=True)
    assert np.all(index.search(queries, 3).ids[:, 2] == 1)
    with pytest.raises(ArgumentError, match="no states"):
        latent_vectors(Datastore(states[:0], np.zeros(0, dtype=np.int64), 3))


def test_a_reservoir_keeps_a_fair_sample_of_each_item() -> None:
    items = np.array([0] * 10 + [1] * 2 + [2] * 5)
    drawn = [reservoir(items, 3, np.random.default_rng(seed)) for seed in range(2000)]
    for places in drawn[:20]:
        assert np.bincount(items[places]).tolist() == [3, 2, 3]
        assert np.all(np.diff(places) > 0)
    shares = np.bincount(np.concatenate(drawn), minlength=len(items)) / len(drawn)
    np.testing.assert_allclose(shares, [0.3] * 10 + [1] * 2 + [0.6] * 5, atol=0.05)
    assert reservoir(items, None, np.random.default_rng(0)).tolist() == list(range(17))
    with pytest.raises(ArgumentError, match="cap=0"):
        reservoir(items, 0, np.random.default_rng(0))


def test_a_capped_memory_keeps_whole_pairs() -> None:
    whole = memory()
    pairs = {tuple(state.tolist()): int(item) for state, item in zip(whole.states, whole.items, strict=True)}
    capped = whole.capped(2, seed=1)
    assert capped.counts().max() == 2
    for state, item in zip(capped.states, capped.items, strict=True):
        assert pairs[tuple(state.tolist())] == item


def mixed_scores(
    embedding: torch.Tensor, kept: Datastore, queries: torch.Tensor, weight: float, ratio: float
) -> NDArray[np.float64]:
    near = torch.cdist(queries.double(), kept.means().double()).square()
    scores = (1 - weight) * queries.double() @ embedding.double().T - weight * ratio * near
    return (scores + weight * ratio * queries.double().square().sum(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_mixture_scores_as_its_equation_says(weight: float) -> None:
    kept = memory(n_items=6)
    rng = np.random.default_rng(1)
    embedding = torch.from_numpy(rng.standard_normal((6, 4)).astype(np.float32))
    queries = torch.from_numpy(rng.standard_normal((20, 4)).astype(np.float32))
    ratio = spread_ratio(embedding, kept, queries)
    mixture = mix(embedding, kept, weight, ratio)
    got = (mixture.queries(queries).double() @ mixture.vectors.double().T).numpy()
    warm = kept.counts() > 0
    assert not warm.all()
    want = mixed_scores(embedding, kept, queries, weight, ratio)
    np.testing.assert_allclose(got[:, warm], want[:, warm], rtol=1e-4, atol=1e-4)
    if weight == 0:
        np.testing.assert_allclose(got, want, atol=1e-5)
    else:
        assert np.all(got[:, ~warm] < got[:, warm].min(axis=1, keepdims=True))
    # The bias must not swell the vectors, or rounding would send every query to a second scan.
    norms = mixture.vectors.norm(dim=1)
    assert norms.max() < 10 * norms[torch.from_numpy(warm)].mean()
    for wrong in (-0.1, 1.1):
        with pytest.raises(ArgumentError, match="between 0"):
            mix(embedding, kept, wrong, 1.0)


def test_the_ratio_brings_both_parts_to_one_spread() -> None:
    kept = memory()
    rng = np.random.default_rng(1)
    embedding = torch.from_numpy(rng.standard_normal((6, 4)).astype(np.float32))
    queries = kept.states[:10]
    assert spread_ratio(10 * embedding, kept, queries) == pytest.approx(
        10 * spread_ratio(embedding, kept, queries)
    )


def local_oracle(kept: Datastore, query: NDArray[np.float32], neighbours: int) -> dict[int, float]:
    distance = np.linalg.norm(kept.states.double().numpy() - query.astype(np.float64), axis=1)
    near = np.argsort(distance, kind="stable")[:neighbours]
    scores = {}
    for item in set(kept.items[near].tolist()):
        mine = near[kept.items[near] == item]
        weights = 1 / distance[mine]
        vector = (weights[:, None] * kept.states[mine].double().numpy()).sum(axis=0) / weights.sum()
        scores[item] = -float(np.square(vector - query).sum())
    return scores


def local(neighbours: int) -> tuple[LocalLatent, Datastore]:
    kept = memory(n_items=30, n=200)
    states = ItemIndex.build(kept.states, kind="exact", metric="l2", fingerprint="f")
    behind = ItemIndex.build(latent_vectors(kept), kind="exact", metric="l2", fingerprint="f")
    return LocalLatent(states, kept.items, behind, neighbours), kept


def test_local_vectors_are_those_of_the_states_nearest_to_the_query() -> None:
    decoder, kept = local(12)
    queries = np.random.default_rng(2).standard_normal((15, 4)).astype(np.float32)
    found = decoder.search(queries, 4)
    for row, query in enumerate(queries):
        scores = local_oracle(kept, query, 12)
        best = sorted(scores, key=lambda i: (-scores[i], i))[:4]
        got = [i for i in found.ids[row].tolist() if i in scores]
        assert got == best[: len(got)]
        np.testing.assert_allclose(found.scores[row, : len(got)], [scores[i] for i in got], rtol=1e-4)


def test_items_without_a_local_vector_follow_in_the_global_order_under_the_same_filters() -> None:
    decoder, kept = local(3)
    queries = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    exclude = np.tile(np.arange(5), 9), np.arange(10) * 5
    found = decoder.search(queries, 30, exclude=exclude, deny=[7])
    for row, query in enumerate(queries):
        ids = found.ids[row][found.ids[row] >= 0].tolist()
        assert sorted(ids) == [i for i in range(5, 30) if i != 7]
        local_items = [i for i in local_oracle(kept, query, 3) if i in ids]
        assert set(ids[: len(local_items)]) == set(local_items)
        behind = decoder.behind.search(queries[row : row + 1], 30).ids[0].tolist()
        rest = [i for i in behind if i in ids and i not in local_items]
        assert ids[len(local_items) :] == rest
        assert np.all(np.diff(found.scores[row, : len(ids)]) <= 0)


def test_a_memory_that_does_not_fit_is_refused() -> None:
    decoder, kept = local(3)
    with pytest.raises(ArgumentError, match="one item per state"):
        LocalLatent(decoder.memory, kept.items[:-1], decoder.behind, 3)
    with pytest.raises(ArgumentError, match="neighbours=0"):
        LocalLatent(decoder.memory, kept.items, decoder.behind, 0)
