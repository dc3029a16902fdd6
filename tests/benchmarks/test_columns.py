"""The program that says what columns of events are worth: parts of logs, equal targets, pairs."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys import Recommender, prepare
from recsys.benchmarks.columns import measuring
from recsys.benchmarks.columns.measuring import measure, summarize
from recsys.benchmarks.columns.studies import (
    STUDIES,
    Side,
    Study,
    rated,
    rated_to_the_last_good,
    visits,
)
from recsys.benchmarks.columns.table import columns_table
from recsys.errors import DataError
from tests.conftest import random_log

SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 1, "max_length": 8}
QUICK: dict[str, Any] = {"epochs": 2, "batch_events": 256}


def study_of(*sides: Side, **options: Any) -> Study:
    return Study(
        name="made",
        log="stars",
        about="made ratings",
        seen="removed",
        made=rated_to_the_last_good,
        prepare={"event_columns": "rating", "split_column": "part", **options},
        encoder=SMALL,
        training=QUICK,
        sides=sides,
    )


SIDES = (
    Side(name="neither"),
    Side(name="read", encoder={"event_columns": ["rating"]}),
    Side(name="weighed", prepare={"weight_column": "weight"}),
    Side(name="targets", prepare={"target_where": "rating>=4"}),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of stars."""
    log = random_log(users=40, items=20, seed=0, longest=20)
    folder = tmp_path_factory.mktemp("logs")
    (folder / "stars").mkdir()
    stars = log.with_columns(rating=(pl.col("item_id") * 7 + pl.col("user_id")) % 5 + 1)
    stars.write_parquet(folder / "stars" / "interactions.parquet")
    return folder


def test_a_users_ratings_end_with_the_last_good_one() -> None:
    log = pl.DataFrame(
        {
            "user_id": [2] * 8 + [1] * 3,
            "item_id": list(range(11)),
            "timestamp": list(range(11)),
            "rating": [5, 1, 4, 2, 4, 3, 5, 1, 4, 1, 5],
        }
    )
    made = rated_to_the_last_good(log)
    # User 1 has two good ratings, too few to be tested; what user 2 did after the last good one is gone.
    assert made["user_id"].to_list() == [1] * 3 + [2] * 7
    assert made["item_id"].to_list() == [8, 9, 10, 0, 1, 2, 3, 4, 5, 6]
    assert made["part"].to_list() == ["train"] * 7 + ["valid"] * 2 + ["test"]
    assert made["weight"].to_list() == pytest.approx([0.8, 0.2, 1.0, 1.0, 0.2, 0.8, 0.4, 0.8, 0.6, 1.0])


def test_visits_have_the_hour_and_the_weekday_of_new_york() -> None:
    # 2012-04-03 18:01 UTC was a Tuesday, 2012-12-02 04:30 UTC was a Sunday and there a Saturday.
    made = visits(pl.DataFrame({"timestamp": [1_333_476_060, 1_354_422_600]}))
    assert made.select("hour", "weekday").rows() == [(14, 2), (23, 6)]


def test_every_side_reads_what_is_prepared() -> None:
    for study in STUDIES:
        names = [side.name for side in study.sides]
        assert len(set(names)) == len(names)
        assert not study.sides[0].encoder
        for side in study.sides:
            for role in ("event_columns", "request_columns"):
                kept = {**study.prepare, **side.prepare}.get(role, "").split(",")
                assert set(side.encoder.get(role, [])) <= {*kept}


def test_sides_are_tested_on_the_same_targets_and_paired(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    study, seeds, said = study_of(*SIDES), [0, 1], list[str]()
    measure(study, seeds, data, tmp_path, said.append)
    record = summarize(study, seeds, tmp_path)
    assert len(said) == 8
    assert [side["name"] for side in record["sides"]] == ["neither", "read", "weighed", "targets"]
    # The program trains as the facade does on this part of the log.
    log = rated_to_the_last_good(pl.read_parquet(data / "stars" / "interactions.parquet"))
    store = prepare(log, tmp_path / "own", split_column="part")
    own = Recommender(
        "sasrec",
        encoder_options=SMALL,
        training_options={**QUICK, "evaluate_every": 2, "seed": 1},
        device="cpu",
    ).fit(store)
    plain = own.evaluate(ks=(10,))
    first = record["sides"][0]
    assert first["removed"]["seeds"][1] == {
        name: plain.metrics_seen_removed[name] for name in ("hr@10", "ndcg@10")
    }
    assert record["counts"]["tested"] == plain.users > 0
    means = {side["name"]: side["removed"]["ndcg@10"] for side in record["sides"]}
    pairs = {(pair["a"], pair["b"], pair["seen"]): pair for pair in record["pairs"]}
    assert len(pairs) == 12
    found = pairs["targets", "neither", "removed"]["ndcg@10"]
    assert found["difference"] == pytest.approx(means["targets"] - means["neither"])
    lines = columns_table({"studies": {"made": record}}).splitlines()
    assert len(lines) == 2 + len(SIDES) + 1
    assert lines[-1].startswith(f"| made | popularity | {plain.popularity['removed']['hr@10']:.4f} / ")
    assert lines[-2].startswith(f"| made | targets | {record['sides'][3]['removed']['hr@10']:.4f} / ")
    assert f"| {found['difference']:+.4f} (" in lines[-2]
    assert lines[2].endswith("|  |  |")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(measuring, "Recommender", never)
    measure(study, seeds, data, tmp_path, said.append)
    assert said[8:] == said[:8]


def test_sides_with_other_targets_are_not_compared(data: Path, tmp_path: Path) -> None:
    other = Study(
        name="other",
        log="stars",
        about="each side with a split of its own",
        seen="removed",
        made=rated,
        prepare={},
        encoder=SMALL,
        training={**QUICK, "epochs": 1},
        sides=(Side(name="all"), Side(name="good", prepare={"target_where": "rating>=4"})),
    )
    measure(other, [0], data, tmp_path, lambda text: None)
    with pytest.raises(DataError, match="other: its sides differ in their targets"):
        summarize(other, [0], tmp_path)
    with pytest.raises(DataError, match="no such log; --data is a folder of logs"):
        measure(other, [0], tmp_path, tmp_path, lambda text: None)
