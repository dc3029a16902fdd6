"""Averages over tie orders, against logs of a few events whose orders can be counted by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.baselines.item_knn import ItemKnnConfig
from recsys.baselines.registry import fit_baseline
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import ArgumentError
from recsys.evaluation.evaluate import evaluate_scores
from recsys.evaluation.tie_orders import draw_order, evaluate_orders, find_ties

A, B, C, D, E, F = range(6)
# User: (item, time) in the file's order.
LOG = {
    "one": [(A, 1), (B, 2), (C, 3), (D, 4)],  # no tie
    "two": [(A, 1), (B, 2), (C, 3), (D, 3)],  # test and validation tied
    "three": [(A, 1), (B, 5), (C, 5), (D, 5)],  # a training event tied, too
    "four": [(A, 2), (B, 2), (C, 3), (D, 4)],  # a tie that concerns no target
}


def _store(tmp_path: Path, log: dict[str, list[tuple[int, int]]], **options: Any) -> SequenceStore:
    rows = [(user, f"i{item}", time) for user, events in log.items() for item, time in events]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare(frame, tmp_path / "data", **options)


@pytest.fixture
def store(tmp_path: Path) -> SequenceStore:
    return _store(tmp_path, LOG)


def _users(store: SequenceStore) -> dict[str, int]:
    ids = pl.read_parquet(store.path / "users.parquet")["user_id"].to_list()
    return {str(name): place for place, name in enumerate(ids)}


def _letters(store: SequenceStore, items: Any) -> list[int]:
    ids = pl.read_parquet(store.path / "items.parquet")["item_id"].to_list()
    return [int(str(ids[int(item)])[1:]) for item in items]


def test_ties_are_found_and_counted(store: SequenceStore) -> None:
    users = _users(store)
    ties = find_ties(store, "test")
    assert {n: bool(ties.several[users[n]]) for n in LOG} == {
        "one": False,
        "two": True,
        "three": True,
        "four": False,
    }
    assert [n for n in LOG if ties.reach_training[users[n]]] == ["three"]
    # The share that `prepare` reports is that of the users whose target these ties decide.
    assert store.meta["tie_share"] == ties.several.mean() == 0.5
    valid = find_ties(store, "valid")
    assert [n for n in LOG if valid.reach_training[users[n]]] == ["three"]


@pytest.mark.parametrize(("user", "orders"), [
    ("one", {(A, B, C, D): 1.0}),
    ("two", {(A, B, C, D): 0.5, (A, B, D, C): 0.5}),
    ("three", {(A, B, C, D): 0.25, (A, C, B, D): 0.25, (A, B, D, C): 0.25, (A, D, B, C): 0.25}),
    ("four", {(A, B, C, D): 1.0}),
])  # fmt: skip
def test_orders_are_drawn_alike_and_no_trained_item_is_a_target(
    store: SequenceStore, user: str, orders: dict[tuple[int, ...], float]
) -> None:
    place = _users(store)[user]
    span = slice(int(store.offsets[place]), int(store.offsets[place + 1]))
    ties = find_ties(store, "test")
    drawn = Counter(
        tuple(_letters(store, draw_order(store, ties, np.random.default_rng(seed)).items[span]))
        for seed in range(800)
    )
    assert set(drawn) == set(orders)
    for order, share in orders.items():
        assert abs(drawn[order] / 800 - share) < 0.07


def test_validation_draws_no_training_event_and_no_test_event_into_the_history(store: SequenceStore) -> None:
    place = _users(store)["three"]
    first, ties = int(store.offsets[place]), find_ties(store, "valid")
    drawn = {
        tuple(_letters(store, draw_order(store, ties, np.random.default_rng(seed)).items[first : first + 3]))
        for seed in range(60)
    }
    assert drawn == {(A, B, C), (A, B, D)}


def test_what_was_learned_does_not_change(store: SequenceStore) -> None:
    other = draw_order(store, find_ties(store, "test"), np.random.default_rng(3))
    assert not np.array_equal(other.items, store.items)
    assert np.array_equal(other.item_counts(), store.item_counts())
    assert store.fingerprint == other.fingerprint
    with pytest.raises(ArgumentError, match="16 events"):
        store.with_items(store.items[1:])


def test_the_mean_of_many_orders_is_the_mean_over_the_possible_targets(store: SequenceStore) -> None:
    # A fixed ranking: item D first, then C, then the others; C as target ranks second, D first.
    letters = _letters(store, range(store.n_items))
    scores = np.array([{D: 9.0, C: 8.0}.get(letter, float(letter)) for letter in letters])

    def evaluate(log: SequenceStore) -> Any:
        return evaluate_scores(
            lambda rows, targets: np.tile(scores, (len(rows), 1)), log, resamples=0, progress=False
        )

    assert evaluate(store).metrics["hr@1"] == 1.0
    result = evaluate_orders(evaluate, store, orders=2000, seed=1)
    users = _users(store)
    assert result.per_user["hr@1"][[users["one"], users["four"]]].tolist() == [1.0, 1.0]
    # "two" and "three": D or C in half of the orders each.
    tied = [users["two"], users["three"]]
    assert np.abs(result.per_user["hr@1"][tied] - 0.5).max() < 0.04
    gain = 0.5 * (1 + 1 / np.log2(3))
    assert np.abs(result.per_user["ndcg@10"][tied] - gain).max() < 0.02
    assert result.metrics["hr@1"] == pytest.approx(result.per_user["hr@1"].mean())
    assert result.metrics == result.metrics_seen_kept
    low, high = result.confidence["hr@1"]
    assert low <= result.metrics["hr@1"] <= high
    assert result.protocol["tie_orders"] == {
        "orders": 2000,
        "several_targets": 0.5,
        "ties_reach_training": 0.25,
    }
    text = result.describe_protocol()
    assert "Tie orders:   mean of 2000; 50.0% of users have several possible targets" in text
    assert "of 25.0% tied training events stay in the history" in text
    whole = result.slices["history_length"]["1-4"]
    assert (whole["rows"], whole["users"]) == (4, 4)
    assert whole["ndcg@10"] == pytest.approx(result.metrics["ndcg@10"])
    assert result.slices["history_length"]["200+"]["hr@10"] is None


def test_one_order_is_one_report_and_the_seed_decides_it(store: SequenceStore) -> None:
    floor = fit_baseline(store, ItemKnnConfig())

    def evaluate(log: SequenceStore) -> Any:
        return evaluate_scores(floor.on(log), log, progress=False)

    stream = np.random.SeedSequence([7, 1]).spawn(1)[0]
    other = draw_order(store, find_ties(store, "test"), np.random.default_rng(stream))
    once = evaluate_orders(evaluate, store, orders=1, seed=7)
    assert once.metrics == evaluate(other).metrics
    assert once.popularity == evaluate(other).popularity
    assert evaluate_orders(evaluate, store, orders=3, seed=7).metrics == (
        evaluate_orders(evaluate, store, orders=3, seed=7).metrics
    )


def test_logs_whose_ties_are_not_known_are_refused(tmp_path: Path) -> None:
    order_only = _store(tmp_path, LOG, time_unit="order")
    with pytest.raises(ArgumentError, match="order of events alone"):
        find_ties(order_only, "test")
    fine = {
        user: [(item, 1_600_000_000_000 + 1000 * time + item) for item, time in events]
        for user, events in LOG.items()
    }
    milliseconds = _store(tmp_path / "ms", fine, time_unit="ms")
    with pytest.raises(ArgumentError, match="finer than the whole seconds"):
        find_ties(milliseconds, "test")


def test_protocols_that_choose_users_by_targets_are_refused(store: SequenceStore) -> None:
    def never(log: SequenceStore) -> Any:
        raise AssertionError

    with pytest.raises(ArgumentError, match="counts other users"):
        evaluate_orders(never, store, orders=2, protocol="rectools")
    with pytest.raises(ArgumentError, match="at least 1"):
        evaluate_orders(never, store, orders=0)


def test_a_temporal_split_draws_among_the_first_of_the_segment(tmp_path: Path) -> None:
    log = {
        "u": [(A, 1), (B, 2), (C, 10), (D, 10), (E, 20), (F, 20), (A, 21)],
        "v": [(C, 1), (D, 2), (E, 3), (F, 4), (B, 10), (A, 20), (C, 22)],
    }
    store = _store(tmp_path, log, split="temporal", valid_time=10, test_time=20)
    place = _users(store)["u"]
    ties = find_ties(store, "test")
    assert ties.several[place]
    assert not ties.reach_training.any()
    drawn = {
        tuple(_letters(store, draw_order(store, ties, np.random.default_rng(seed)).items[
            int(store.offsets[place]) : int(store.offsets[place + 1])]))
        for seed in range(40)
    }  # fmt: skip
    assert drawn == {(A, B, C, D, E, F, A), (A, B, C, D, F, E, A)}
