import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.errors import ArgumentError, DataError
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.list_metrics import list_metrics
from recsys.evaluation.metrics import mean_metrics, per_user_metrics, serendipity
from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import PROTOCOLS, Protocol
from recsys.evaluation.targets import EvaluationTargets, select_targets


class Model:
    """Whole-number states and vectors: ties are massive and every score is exact."""

    def __init__(self, store: Any, seed: int = 0, width: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randint(-1, 2, (store.n_items, width), generator=generator).float()
        self.states = torch.randint(-2, 3, (store.n_users, width), generator=generator).float()
        self.asked: list[int] = []

    def __call__(self, rows: Any, targets: EvaluationTargets) -> Tensor:
        self.asked += targets.user[rows].tolist()
        return self.states[torch.from_numpy(targets.user[rows])]


def brute_force(
    store: Any, model: Model, targets: EvaluationTargets, ties: str, removed: bool
) -> list[float]:
    ranks = []
    for row in range(targets.n_rows):
        scores = (model.weight @ model.states[int(targets.user[row])]).tolist()
        target = int(targets.target[row])
        others = set(range(store.n_items)) - {target}
        if removed:
            others -= set(store.items[targets.history_start[row] : targets.history_end[row]].tolist())
        greater = sum(scores[i] > scores[target] for i in others)
        equal = sum(scores[i] == scores[target] for i in others)
        ranks.append(1 + greater + {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}[ties] * equal)
    return ranks


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", ["default", "recbole", "rectools", "gsasrec", "s3rec"])
def test_every_full_protocol_gives_the_figures_of_ranking_item_by_item(
    random_store: Any, name: str, split: Any
) -> None:
    store = random_store(7, segment=3)
    model, rules = Model(store), PROTOCOLS[name]
    result = evaluate_hidden(model, model.weight, store, split=split, protocol=name, batch_rows=16)
    targets = select_targets(store, split, rules.targets, drop_seen_targets=rules.seen_targets == "dropped")
    for removed, found in ((False, result.metrics_seen_kept), (True, result.metrics_seen_removed)):
        ranks = brute_force(store, model, targets, rules.ties, removed)
        if removed and rules.seen_targets == "missed":
            assert targets.repeated.any()
            ranks = np.where(targets.repeated, 10**7, ranks).tolist()  # with the history, out of the list
        expected = mean_metrics(per_user_metrics(ranks, targets.row_offsets, ndcg_ideal=rules.ndcg_ideal))
        assert found == pytest.approx(expected)
    assert result.metrics == (
        result.metrics_seen_kept if rules.seen == "kept" else result.metrics_seen_removed
    )
    assert (result.users, result.rows) == (targets.n_users, targets.n_rows)
    assert mean_metrics(result.per_user) == result.metrics
    assert result.user.tolist() == sorted(set(targets.user.tolist()))


def test_the_state_is_asked_for_once_per_user(random_store: Any) -> None:
    store = random_store(7, segment=4)
    model = Model(store)
    result = evaluate_hidden(model, model.weight, store, protocol="rectools", batch_rows=5, lists=False)
    assert result.rows > result.users
    assert model.asked == result.user.tolist()


@pytest.mark.parametrize("protocol", ["default", "rectools"])
def test_the_batch_size_changes_no_figure(random_store: Any, protocol: str) -> None:
    store = random_store(8, segment=3)
    model = Model(store)
    results = [
        evaluate_hidden(model, model.weight, store, protocol=protocol, batch_rows=rows).to_json()
        for rows in (1, 7, 999)
    ]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1] == results[2]


def test_lists_are_those_of_sorting_all_scores(random_store: Any) -> None:
    store = random_store(9)
    store.item_features = random_features(store.n_items)
    model = Model(store)
    result = evaluate_hidden(model, model.weight, store, ks=(1, 5), batch_rows=7)
    targets = select_targets(store)
    histories = [store.items[a:b] for a, b in zip(targets.history_start, targets.history_end, strict=True)]
    read = np.concatenate(histories).astype(np.int64), np.cumsum([0, *map(len, histories)])
    for seen, removed in (("kept", False), ("removed", True)):
        ids = np.full((targets.n_users, 5), -1)
        for row in range(targets.n_rows):
            scores = (model.weight @ model.states[int(targets.user[row])]).tolist()
            history = set(store.items[targets.history_start[row] : targets.history_end[row]].tolist())
            pool = [i for i in range(store.n_items) if not removed or i not in history]
            best = sorted(pool, key=lambda i: (-scores[i], i))[:5]
            ids[row, : len(best)] = best
        expected = list_metrics(ids, store.item_counts(), (1, 5), store.item_features, read)
        popularity = popularity_ranks(store, targets)._asdict()[seen]
        expected |= serendipity(result.ranks[seen], popularity, targets.row_offsets, (1, 5))
        assert result.lists[seen] == pytest.approx(expected)
    assert {"diversity_tags@5", "diversity_vectors@5", "calibration_kl@5"} <= set(result.lists["kept"])
    lines = result.list_table().splitlines()
    assert re.split("  +", lines[0].strip()) == ["list", "kept @1", "kept @5", "removed @1", "removed @5"]
    (gini,) = (line.split() for line in lines if line.startswith("gini"))
    assert gini[1:] == [f"{result.lists[seen][f'gini@{k}']:.4f}" for seen in result.lists for k in (1, 5)]
    assert "calibration by 6 tags, diversity by vectors of 3 numbers" in result.describe_protocol()


def random_features(n_items: int) -> ItemFeatures:
    rng = np.random.default_rng(n_items)
    counts = rng.integers(0, 3, n_items)
    return ItemFeatures(
        tags=np.concatenate([np.sort(rng.choice(6, n, replace=False)) for n in counts]).astype(np.int32),
        tag_offsets=np.cumsum([0, *counts]),
        tag_weights=np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts).astype(np.float32),
        n_tags=6,
        vectors=rng.normal(size=(n_items, 3)).astype(np.float16),
    )


def test_a_constant_scorer_does_not_score(random_store: Any) -> None:
    store = random_store(7)
    for name in ("default", "recbole"):
        result = evaluate_hidden(
            lambda rows, _: torch.ones(len(rows), 2), torch.ones(store.n_items, 2), store, protocol=name
        )
        assert result.metrics["hr@10"] == 0.0


def test_a_scorer_that_knows_the_target_is_perfect(random_store: Any) -> None:
    store = random_store(7)
    weight = torch.eye(store.n_items)
    result = evaluate_hidden(lambda rows, t: weight[torch.from_numpy(t.target[rows])], weight, store)
    assert {name for name, value in result.metrics.items() if value != 1.0} == {
        "precision@5",
        "precision@10",
        "precision@20",
    }
    assert result.metrics["precision@5"] == pytest.approx(1 / 5)
    assert result.confidence["ndcg@10"] == (1.0, 1.0)


def test_a_popularity_scorer_gets_the_popularity_baselines_figures(random_store: Any) -> None:
    store = random_store(11)
    weight = torch.from_numpy(store.item_counts()).float()[:, None]
    result = evaluate_hidden(lambda rows, _: torch.ones(len(rows), 1), weight, store)
    assert result.popularity == {"kept": result.metrics_seen_kept, "removed": result.metrics_seen_removed}


def test_a_sampled_protocol_warns_and_has_one_kind_of_figure(random_store: Any) -> None:
    store = random_store(7, n_items=300)
    model = Model(store)
    with pytest.warns(UserWarning, match="100 sampled negatives"):
        result = evaluate_hidden(model, model.weight, store, protocol="sasrec")
    assert result.metrics_seen_kept == {}
    assert result.metrics == result.metrics_seen_removed
    assert list(result.popularity) == ["removed"]
    assert result.protocol["warning"]
    with pytest.warns(UserWarning, match="sampled"):
        again = evaluate_hidden(model, model.weight, store, protocol="sasrec")
    with pytest.warns(UserWarning, match="sampled"):
        other = evaluate_hidden(model, model.weight, store, protocol="sasrec", seed=1)
    assert again.metrics == result.metrics
    assert other.metrics != result.metrics


def test_sampled_users_are_drawn_by_the_seed(random_store: Any) -> None:
    store = random_store(7)
    model = Model(store)
    few = Protocol(name="few", split="any", max_valid_users=10)
    drawn = [
        evaluate_hidden(model, model.weight, store, split="valid", protocol=few, seed=seed).user.tolist()
        for seed in (0, 0, 1)
    ]
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1] != drawn[2]
    assert evaluate_hidden(model, model.weight, store, protocol=few).users > 10


def test_the_report_is_plain_json_with_the_promised_keys(random_store: Any) -> None:
    store = random_store(7, meta={"name": "toy", "source": {"file": "toy.csv"}})
    model = Model(store)
    result = evaluate_hidden(model, model.weight, store, encoder="sasrec", ks=[10])
    report = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (report["dataset"], report["encoder"], report["split"]) == ("toy", "sasrec", "test")
    assert report["users"] == result.users
    metrics = ("hr", "recall", "ndcg", "mrr", "precision", "map")
    assert list(report["metrics"]) == [f"{name}@10" for name in metrics]
    low, high = report["confidence"]["hr@10"]
    assert low <= report["metrics"]["hr@10"] <= high
    assert report["protocol"]["candidates"] == "full catalog"
    assert set(report["slices"]) == {"history_length", "popularity", "target"}
    assert set(report["lists"]["kept"]) == {"coverage@10", "novelty@10", "gini@10", "serendipity@10"}


@pytest.mark.parametrize("protocol", ["default", "recbole", "rectools"])
def test_the_table_shows_the_headline_first(random_store: Any, protocol: str) -> None:
    store = random_store(7, segment=2)
    model = Model(store)
    result = evaluate_hidden(model, model.weight, store, protocol=protocol)
    text = result.table()
    headers, line = (next(x for x in text.splitlines() if x.startswith(word)) for word in ("metric", "hr@10"))
    low, high = result.confidence["hr@10"]
    figures = line.split()
    assert figures[1:3] == [f"{result.metrics['hr@10']:.4f}", f"{low:.4f}-{high:.4f}"]
    rule = {"default": "kept", "recbole": "kept", "rectools": "removed"}[protocol]
    assert re.split("  +", headers)[1:3] == [f"seen {rule}", f"95% of {rule}"]
    assert figures[-2:] == [f"{result.popularity[seen]['hr@10']:.4f}" for seen in _rules_of(rule)]
    assert all((f"{name}@10" in text) == (protocol == "rectools") for name in ("recall", "precision", "map"))
    assert "coverage@10" in text
    assert max(map(len, text.splitlines())) <= 80
    assert PROTOCOLS[protocol].name in result.describe_protocol()


def _rules_of(first: str) -> list[str]:
    return [first, "removed" if first == "kept" else "kept"]


def test_intervals_and_lists_can_be_left_out(random_store: Any) -> None:
    store = random_store(7)
    model = Model(store)
    result = evaluate_hidden(model, model.weight, store, lists=False, resamples=0)
    assert result.confidence == {}
    assert result.lists == {}
    assert "No lists" in result.list_table()
    assert len(result.table().splitlines()) == 14  # title, headers, 3 metrics at 4 cut-offs


def test_scores_are_computed_in_the_vectors_dtype_and_without_gradients(random_store: Any) -> None:
    store = random_store(7)
    weight = torch.randn(store.n_items, 3, dtype=torch.float64, requires_grad=True)
    result = evaluate_hidden(lambda rows, _: torch.ones(len(rows), 3), weight, store)
    assert weight.grad is None
    assert result.users > 0


def test_a_model_of_nan_is_refused(random_store: Any) -> None:
    store = random_store(7)
    with pytest.raises(ArgumentError, match="finite"):
        evaluate_hidden(
            lambda rows, _: torch.full((len(rows), 2), float("nan")), torch.ones(store.n_items, 2), store
        )


def test_arguments_that_do_not_fit_are_refused(random_store: Any) -> None:
    store = random_store(7)
    weight = torch.ones(store.n_items, 2)

    def hidden(rows: Any, _: EvaluationTargets) -> Tensor:
        return torch.ones(len(rows), 2)

    with pytest.raises(ArgumentError, match="one vector for each of the 40 items"):
        evaluate_hidden(hidden, weight[1:], store)
    with pytest.raises(ArgumentError, match="hidden_fn returned shape"):
        evaluate_hidden(lambda rows, _: torch.ones(len(rows), 3), weight, store)
    with pytest.raises(ArgumentError, match="batch_rows=0"):
        evaluate_hidden(hidden, weight, store, batch_rows=0)
    with pytest.raises(ArgumentError, match="ks="):
        evaluate_hidden(hidden, weight, store, ks=[0])


def test_a_split_without_anybody_is_an_error(make_store: Any) -> None:
    store = make_store([([0, 1], [], [])], n_items=2)
    with pytest.raises(DataError, match="the valid split has no user"):
        evaluate_hidden(lambda rows, _: torch.ones(len(rows), 2), torch.ones(2, 2), store, split="valid")


def test_a_prepared_log_is_evaluated_and_its_card_names_the_file_and_the_split(tmp_path: Path) -> None:
    import polars as pl

    from recsys.datasets.preparing.prepare import prepare

    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": rng.integers(0, 30, 900),
            "item_id": rng.integers(0, 50, 900),
            "timestamp": 1_000_000_000 + rng.integers(0, 1000, 900) * 100,
        }
    )
    log.write_csv(tmp_path / "log.csv")
    store = prepare(tmp_path / "log.csv", tmp_path / "prepared", split="temporal")
    result = evaluate_hidden(
        lambda rows, _: torch.ones(len(rows), 2), torch.ones(store.n_items, 2), store, protocol="rectools"
    )
    card = result.protocol
    assert card["file"] == "log.csv"
    assert card["sha256"] == store.meta["source"]["sha256"]
    assert card["split"] == "temporal"
    assert card["tie_share"] == 0
    assert card["cold_items_dropped"] == store.meta["split"]["cold_items"]
    assert result.dataset == store.name
    assert result.rows > result.users
