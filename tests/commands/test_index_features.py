"""`recsys index add RUN FILE`: items with their features, from one call to the next."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, ConfigError
from tests.commands.test_index_commands import call

WIDTH = 5
KINDS = ["Drama", "War", "Comedy"]


def items_of(ids: list[int]) -> tuple[pl.DataFrame, np.ndarray[Any, Any]]:
    """Items whose features follow their last digit."""
    drawn = np.random.default_rng(1).normal(size=(10, WIDTH))
    frame = pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"film of the {'night' if item % 2 else 'day'}" for item in ids],
            "genres": [f"{KINDS[item % 3]}|{KINDS[item % 2]}" for item in ids],
        }
    )
    return frame, drawn[np.array(ids) % 10]


@pytest.fixture(scope="module")
def trained(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("index-features"))
    items, vectors = items_of([*range(30), 100, 101])
    recsys.prepare(
        log,
        folder / "data",
        items=items,
        item_tags="genres",
        item_words="title",
        item_vectors=vectors,
        keep_cold=True,
    )
    options = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16, "item_parts": "id+features"}
    model = Recommender(encoder_options=options, training_options={"epochs": 1, "batch_events": 512})
    model.fit(folder / "data").build_index()
    model.save(folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def answers(run: Path, history: str, *arguments: object) -> dict[int, float]:
    found = call("recommend", run, "--history", history, "--k", 2000, *arguments)["items"]
    return {row["item"]: row["score"] for row in found}


def test_a_thousand_unseen_items_are_answered(run: Path, tmp_path: Path) -> None:
    items, vectors = items_of(list(range(1000, 2000)))
    items.write_parquet(tmp_path / "new.parquet")
    np.save(tmp_path / "new.npy", vectors)
    before = answers(run, "1,2")
    with pytest.raises(ArgumentError, match="name those of these items with item_vectors="):
        call("index", "add", run, tmp_path / "new.parquet")
    named = ("--item-tags", "genres", "--item-words", "title", "--item-vectors", tmp_path / "new.npy")
    facts = call("index", "add", run, tmp_path / "new.parquet", *named)
    assert (facts["new"], facts["items"], facts["added"], facts["gone"]) == (1000, 1032, 1000, 0)
    found = answers(run, "1,2")
    assert set(range(1000, 2000)) <= set(found)
    assert {item: found[item] for item in before} == before
    # They score as a cold item with the same features does, and are read as it is.
    assert {found[item] for item in range(1000, 2000, 30)} == {found[100]}
    one, other = (answers(run, f"1,{item}", "--include-seen") for item in (1000, 100))
    assert {**one, 100: 0, 1000: 0} == {**other, 100: 0, 1000: 0}  # but for the bias of what was seen
    assert answers(run, "1,1000", "--include-seen") != answers(run, "1,2", "--include-seen")
    titles = call("recommend", run, "--history", "1,1500", "--k", 2000)["items"]
    assert {row["title"] for row in titles} == {"film of the night", "film of the day"}
    assert set(range(1001, 2000, 6)) <= set(answers(run, "1,2", "--category", "War"))
    with pytest.raises(ArgumentError, match="item 1000 is in the catalog already"):
        call("index", "add", run, tmp_path / "new.parquet", *named)
    assert call("index", "remove", run, 1000, 1001)["items"] == 1030
    again = answers(run, "1,1000")
    assert not {1000, 1001} & set(again)
    assert call("index", run)["items"] == 32
    assert answers(run, "1,1000") == again
    items[:2].write_csv(tmp_path / "again.csv")
    np.save(tmp_path / "again.npy", vectors[:2])
    named = (*named[:-1], tmp_path / "again.npy")
    assert call("index", "add", run, tmp_path / "again.csv", *named)["items"] == 1032
    assert answers(run, "1,2") == found


def test_columns_of_the_run_are_read_where_none_is_named(run: Path, tmp_path: Path) -> None:
    items, _ = items_of([500, 501])
    items.write_csv(tmp_path / "new.csv")
    call("index", "add", run, tmp_path / "new.csv", "--item-tags", "genres")
    unread = items_of([502])[0].with_columns(genres=pl.lit("Drama|Western"))
    unread.write_ndjson(tmp_path / "more.jsonl")
    with pytest.warns(UserWarning, match="Western"):
        call("index", "add", run, tmp_path / "more.jsonl", "--item-tags", "genres", "--on-unknown", "warn")
    assert {501, 502} <= set(answers(run, "1,500"))
    with pytest.raises(ConfigError, match="one file of new items with their features: 2 are given"):
        call("index", "add", run, 1, 2, "--item-tags", "genres")


def test_what_was_not_read_of_the_items_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items, _ = items_of([500, 501])
    items.with_columns(title=pl.lit("film of the zebra")).write_csv(tmp_path / "new.csv")
    facts = call("index", "add", run, tmp_path / "new.csv", "--item-words", "title")
    assert facts["unread"] == ["column 'genres'", "vectors"]
    assert facts["unknown_words"] == 1
    assert json.dumps(facts)
