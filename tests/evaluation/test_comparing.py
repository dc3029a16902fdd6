"""Two results side by side: what is tested, what is refused, what depends on nothing else asked."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import recsys
from recsys.errors import ArgumentError
from recsys.evaluation.bootstrap import paired_difference, stream_of
from recsys.evaluation.evaluate import evaluate_scores
from recsys.evaluation.result import EvaluationResult
from tests.conftest import StoreMaker


def _result(store: Any, seed: int, **options: Any) -> EvaluationResult:
    table = np.random.default_rng(seed).random((store.n_users, store.n_items))
    options = {"progress": False, "encoder": f"model {seed}", **options}
    return evaluate_scores(lambda rows, targets: table[targets.user[rows]], store, **options)


def test_each_metric_is_tested_on_the_same_users(random_store: StoreMaker) -> None:
    store = random_store(3, segment=3)
    a, b = _result(store, 1), _result(store, 2)
    found = recsys.compare(a, b, resamples=500)
    assert found.names == ("model 1", "model 2")
    assert list(found.metrics) == [name for name in a.metrics if name.split("@")[0] in ("hr", "ndcg", "mrr")]
    for name in found.metrics:
        wanted = paired_difference(a.per_user[name], b.per_user[name], stream_of(name, 0), resamples=500)
        assert found[name].test == wanted
        assert (found[name].a, found[name].b) == pytest.approx((a[name], b[name]))
    turned = b.compare(a, resamples=500)
    assert turned["ndcg@10"].a == found["ndcg@10"].b
    lines = found.table().splitlines()
    assert lines[1].split() == ["metric", "a", "b", "a", "-", "b", "95%", "interval", "p"]
    assert all(len(line) <= 80 for line in lines)
    assert repr(found) == found.table()


def test_a_model_does_not_differ_from_itself(random_store: StoreMaker) -> None:
    a = _result(random_store(3), 1)
    found = a.compare(a, resamples=100)
    assert found["hr@10"].test is not None
    assert found["hr@10"].test.p_value == 1.0


def test_slices_hold_the_means_of_the_results_own(random_store: StoreMaker) -> None:
    store = random_store(5, n_users=80)
    a, b = _result(store, 1), _result(store, 2)
    found = a.compare(b, resamples=50)
    for group, parts in found.slices.items():
        for name, part in parts.items():
            own = a.slices[group][name]
            assert part["ndcg@10"].users == own["users"] == own["rows"]
            assert part["ndcg@10"].a == pytest.approx(own["ndcg@10"])
            assert part["hr@10"].b == pytest.approx(b.slices[group][name]["hr@10"])
            assert (part["hr@10"].test is None) == (own["users"] < 10)
    assert sum(part["hr@10"].users for part in found.slices["target"].values()) == a.users
    assert all(len(line) <= 80 for line in found.slice_table().splitlines())
    assert found.to_json()["slices"]["target"]["new"]["ndcg@10"]["a"] == a.slices["target"]["new"]["ndcg@10"]


def test_a_user_counts_once_in_a_slice(make_store: StoreMaker) -> None:
    users: Any = [([1, 2], [], [3, 0])] + [([1, 2, 0], [], [3]) for _ in range(3)]
    store = make_store(users, 4)
    a = _result(store, 1, protocol="rectools")
    b = _result(store, 2, protocol="rectools")
    part = a.compare(b, resamples=10).slices["target"]["new"]["hr@10"]
    assert (part.users, a.slices["target"]["new"]["rows"]) == (4, 5)
    assert part.a == 1.0  # four items: all are among ten


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"split": "valid"}, "segment is 'test' and 'valid'"),
        ({"protocol": "rectools"}, "protocol is 'default' and 'rectools'"),
        ({"ks": (3,)}, "share no metric"),
        ({"users": np.arange(5)}, "count different users"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    random_store: StoreMaker, other: dict[str, Any], message: str
) -> None:
    store = random_store(3)
    with pytest.raises(ArgumentError, match=message):
        recsys.compare(_result(store, 1), _result(store, 2, **other))


def test_results_of_other_data_are_refused(random_store: StoreMaker) -> None:
    a = dataclasses.replace(_result(random_store(3), 1), digest="a")
    with pytest.raises(ArgumentError, match="of different data"):
        a.compare(dataclasses.replace(a, digest="b"))
    with pytest.raises(ArgumentError, match="takes two results of evaluate.., not str"):
        recsys.compare("run", a)  # type: ignore[arg-type]


def test_a_metrics_interval_and_test_do_not_depend_on_the_others(random_store: StoreMaker) -> None:
    store = random_store(4, segment=2)
    few, many = _result(store, 1, ks=(10,)), _result(store, 1, ks=(1, 5, 10, 20))
    assert few.confidence["ndcg@10"] == many.confidence["ndcg@10"]
    assert few.confidence["hr@10"] == many.confidence["hr@10"]
    other = _result(store, 2)
    assert few.compare(other)["mrr@10"] == many.compare(other)["mrr@10"]


def test_a_result_is_read_by_metric_and_shows_itself_shortly(random_store: StoreMaker) -> None:
    result = _result(random_store(4), 1)
    assert result["NDCG@10"] == result.metrics["ndcg@10"]
    assert "hr@20" in result
    assert "hr@7" not in result
    assert list(result) == list(result.metrics)
    with pytest.raises(ArgumentError, match="no metric 'hr@7' in this result: it holds hr@1"):
        result["hr@7"]
    text = repr(result)
    assert text.startswith("EvaluationResult(model 1 on toy, test, ")
    low, high = result.confidence["ndcg@10"]
    assert f"ndcg@10 {result['ndcg@10']:.4f} ({low:.4f}-{high:.4f})" in text
    assert len(text) < 200
    assert result._repr_html_().count("<tr>") == 1 + len(result.table().splitlines()) - 2
    shown = dataclasses.replace(result, dataset="<b>x</b>")._repr_html_()
    assert "<b>x</b>" not in shown
    slices = result.slice_table().splitlines()
    assert len(slices) == 1 + sum(
        part["rows"] > 0 for group in result.slices.values() for part in group.values()
    )
