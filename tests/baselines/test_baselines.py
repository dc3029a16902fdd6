"""Baselines against figures worked out by hand, and against the definitions they are closed forms of."""

from typing import Any

import numpy as np
import pytest

from recsys.baselines.ease import EaseConfig
from recsys.baselines.evaluating import evaluate_baseline
from recsys.baselines.item_knn import ItemKnnConfig
from recsys.baselines.popularity import PopularityConfig
from recsys.baselines.registry import baseline_configs, baseline_name, fit_baseline, register_baseline
from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.errors import ArgumentError, ConfigError
from recsys.evaluation.evaluate import evaluate_hidden, evaluate_scores
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.targets import select_targets

# Users of items 0, 1, 2: three, two and two; 0 and 1 share two users, 0 and 2 two, 1 and 2 one.
TRAINING = [[0, 1], [0, 1, 2], [0, 2]]


def _scores(store: Any, config: Any) -> Any:
    targets = select_targets(store, "test")
    return fit_baseline(store, config)(targets.first_rows, targets)


def test_knn_adds_the_cosines_of_the_history(make_store: Any) -> None:
    store = make_store([(items, [], [3]) for items in TRAINING], 4)
    near, far = 2 / np.sqrt(6), 1 / 2
    assert _scores(store, ItemKnnConfig(neighbors=3)) == pytest.approx(
        np.array(
            [[near, near, near + far, 0], [2 * near, near + far, near + far, 0], [near, near + far, near, 0]]
        )
    )


def test_knn_keeps_each_items_nearest_and_shrinks(make_store: Any) -> None:
    store = make_store([(items, [], [3]) for items in TRAINING], 4)
    near = 2 / (np.sqrt(6) + 1)
    # Items 1 and 2 keep item 0; item 0 keeps item 1, the lower of two that are equally near.
    assert _scores(store, ItemKnnConfig(neighbors=1, shrink=1.0)) == pytest.approx(
        np.array([[near, near, near, 0], [near, near, near, 0], [0, near, near, 0]])
    )


def test_knn_counts_an_item_once_and_learns_from_training_alone(make_store: Any) -> None:
    plain = make_store([([0, 1], [2], [3]), ([0, 2], [], [1])], 4)
    repeated = make_store([([0, 1, 0, 1, 1], [2], [3]), ([0, 2, 2], [], [1])], 4)
    found = _scores(plain, ItemKnnConfig())
    assert np.array_equal(found, _scores(repeated, ItemKnnConfig()))
    # 1 and 2 meet in no user's training events; the validated 2 is in the first user's history.
    near = 1 / np.sqrt(2)
    assert found[0] == pytest.approx([2 * near, near, near, 0])


def test_ease_of_two_items_is_a_ratio_of_counts(make_store: Any) -> None:
    store = make_store([([0, 1], [], [0]), ([0, 1], [], [0]), ([0], [], [1])], 2)
    # Gram [[3, 2], [2, 2]] + 1: weights 2 / 4 from item 0 to 1 and 2 / 3 from 1 to 0.
    found = _scores(store, EaseConfig(regularization=1.0))
    assert found == pytest.approx(np.array([[2 / 3, 1 / 2], [2 / 3, 1 / 2], [0, 1 / 2]]))


def test_ease_is_ridge_regression_of_each_item_on_the_others(make_store: Any) -> None:
    rng = np.random.default_rng(5)
    users = [sorted(rng.choice(7, 3, replace=False).tolist()) for _ in range(20)]
    store = make_store([(items, [], [0]) for items in users], 7)
    taken = np.zeros((20, 7))
    for user, items in enumerate(users):
        taken[user, items] = 1
    weight = np.zeros((7, 7))
    for item in range(7):
        others = np.delete(np.arange(7), item)
        x = taken[:, others]
        weight[others, item] = np.linalg.solve(x.T @ x + 2.5 * np.eye(6), x.T @ taken[:, item])
    assert _scores(store, EaseConfig(regularization=2.5)) == pytest.approx(taken @ weight)


def test_ease_refuses_what_memory_would_not_hold(make_store: Any) -> None:
    store = make_store([([0, 1], [], [2])], 25_001)
    with pytest.raises(ArgumentError, match="15 GB"):
        fit_baseline(store, EaseConfig())


def test_blocks_of_items_change_nothing(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    users = [(rng.integers(0, 30, 12).tolist(), [1], [2]) for _ in range(15)]
    store = make_store(users, 30)
    whole = [_scores(store, config) for config in (ItemKnnConfig(neighbors=4), EaseConfig())]
    monkeypatch.setattr("recsys.baselines.pairs.CELLS_AT_ONCE", 90)
    parts = [_scores(store, config) for config in (ItemKnnConfig(neighbors=4), EaseConfig())]
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("protocol", ["default", "recbole", "rectools"])
@pytest.mark.filterwarnings("ignore:protocol")
def test_scores_are_ranked_as_inner_products_are(make_store: Any, protocol: str) -> None:
    import torch

    rng = np.random.default_rng(2)
    users = [(rng.integers(0, 12, 5).tolist(), [int(rng.integers(12))], rng.integers(0, 12, 2).tolist())
             for _ in range(9)]  # fmt: skip
    store = make_store(users, 12)
    store.item_features = ItemFeatures(
        tags=(np.arange(12) % 3).astype(np.int32),
        tag_offsets=np.arange(13),
        tag_weights=np.ones(12, dtype=np.float32),
        n_tags=3,
        vectors=None,
    )
    # Whole numbers: ties are many, and both ways of adding are exact.
    states, items = rng.integers(-2, 3, (9, 3)), rng.integers(-2, 3, (12, 3))
    hidden = torch.from_numpy(states.astype(np.float32))
    by_vectors = evaluate_hidden(
        lambda rows, targets: hidden[torch.from_numpy(targets.user[rows])],
        torch.from_numpy(items.astype(np.float32)),
        store,
        protocol=protocol,
    )
    by_scores = evaluate_scores(
        lambda rows, targets: (states @ items.T)[targets.user[rows]].astype(np.float64),
        store,
        protocol=protocol,
        batch_rows=4,
        lists=True,
    )
    for seen, ranks in by_vectors.ranks.items():
        assert np.array_equal(ranks, by_scores.ranks[seen])
    assert by_scores.lists
    ours, theirs = by_scores.to_json(), by_vectors.to_json()
    assert {k: v for k, v in ours.items() if k != "seconds"} == {
        k: v for k, v in theirs.items() if k != "seconds"
    }


def test_lists_of_a_floor_are_made_where_they_are_asked_for(make_store: Any) -> None:
    store = make_store([([0, 1, 1], [2], [1]), ([0, 2], [1], [0]), ([3, 0], [0], [2])], 5)
    assert evaluate_baseline(store, PopularityConfig()).lists == {}
    found = evaluate_baseline(store, PopularityConfig(), ks=(2, 5), lists=True).lists
    # Training events are 2 2 1 1 0: all are told 0 and 1; without what they had 3 4, 3 4 and 1 2.
    assert found["kept"]["coverage@2"] == 2 / 5
    assert found["removed"]["coverage@2"] == 4 / 5
    assert found["kept"]["serendipity@2"] == 0


def test_the_popularity_floor_is_the_popularity_of_every_report(make_store: Any) -> None:
    store = make_store([([0, 1, 1], [2], [1]), ([0, 2], [1], [0]), ([3, 0], [0], [2])], 5)
    result = evaluate_baseline(store, PopularityConfig())
    beside = popularity_ranks(store, select_targets(store, "test"))._asdict()
    assert all(np.array_equal(result.ranks[seen], beside[seen]) for seen in ("kept", "removed"))
    assert result.encoder == "popularity"
    assert result.protocol["protocol"] == "default"


def test_a_sampled_protocol_ranks_the_same_draws(make_store: Any) -> None:
    store = make_store([([0, 1, 1], [2], [1]), ([0, 2], [1], [0]), ([3, 0], [0], [2])], 400)
    with pytest.warns(UserWarning, match="sampled negatives"):
        result = evaluate_baseline(store, PopularityConfig(), protocol="sasrec")
    assert np.array_equal(result.metrics_seen_removed["hr@10"], result.popularity["removed"]["hr@10"])


def test_scores_must_fit_and_be_finite(make_store: Any) -> None:
    store = make_store([([0, 1], [2], [1])], 3)
    with pytest.raises(ArgumentError, match="3 items"):
        evaluate_scores(lambda rows, targets: np.zeros((1, 2)), store)
    with pytest.raises(ArgumentError, match="not finite"):
        evaluate_scores(lambda rows, targets: np.full((1, 3), np.nan), store)


def test_options_make_configurations_and_wrong_ones_are_refused() -> None:
    found = baseline_configs("item-knn", {"neighbors": [5, 10], "shrink": 2.0})
    assert found == [ItemKnnConfig(neighbors=5, shrink=2.0), ItemKnnConfig(neighbors=10, shrink=2.0)]
    assert baseline_configs("ease", {}) == [EaseConfig()]
    with pytest.raises(ConfigError, match="did you mean 'ease'"):
        baseline_configs("eas", {})
    for name, options in (("item-knn", {"neighbors": 0}), ("item-knn", {"shrink": -1.0}),
                          ("ease", {"regularization": 0.0}), ("popularity", {"shrink": 1.0})):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(options))):
            baseline_configs(name, options)


def test_a_name_or_a_class_is_registered_once_and_strange_options_fit_nothing(make_store: Any) -> None:
    with pytest.raises(ConfigError, match="registered already"):
        register_baseline("ease", PopularityConfig)(lambda store, config: None)  # type: ignore[arg-type, return-value]
    assert baseline_name(EaseConfig()) == "ease"
    with pytest.raises(ArgumentError, match="dict holds the options of no registered baseline"):
        fit_baseline(make_store([([0, 1], [], [2])], 3), {"neighbors": 3})
