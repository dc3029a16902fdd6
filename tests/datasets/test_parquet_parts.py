"""A folder or a pattern of Parquet parts is one log, in the order of the names."""

from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.prepared.store import is_prepared
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import DataError

T = 1_600_000_000
# All at one time, so that the order of the parts decides.
FRAME = pl.DataFrame({"user_id": [1] * 9, "item_id": range(9), "timestamp": [T] * 9})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "parts[1]"
    target.mkdir()
    for number in (2, 0, 1):
        FRAME[number * 3 : number * 3 + 3].write_parquet(target / f"part-{number}.parquet")
    (target / "_SUCCESS").touch()
    FRAME.write_parquet(target / "_metadata.parquet")
    FRAME.write_parquet(target / ".part-0.parquet")
    return target


def test_a_folder_is_read_in_the_order_of_its_names(folder: Path, tmp_path: Path) -> None:
    assert read_interactions(folder)["item_id"].to_list() == list(range(9))
    store = prepare(folder, tmp_path / "out")
    assert store.items.tolist() == list(range(9))
    assert store.name == "parts[1]"
    assert not is_prepared(folder)
    assert is_prepared(store.path)


def test_the_digest_covers_all_parts_and_their_names(folder: Path, tmp_path: Path) -> None:
    first = prepare(folder, tmp_path / "out").meta["source"]["sha256"]
    assert prepare(str(folder), tmp_path / "out").meta["source"]["sha256"] == first
    (folder / "part-1.parquet").rename(folder / "part-9.parquet")
    with pytest.raises(DataError, match="made from another log"):
        prepare(folder, tmp_path / "out")
    assert prepare(folder, tmp_path / "other").items.tolist() == [0, 1, 2, 6, 7, 8, 3, 4, 5]


def test_a_pattern_is_read_where_nothing_has_that_name(tmp_path: Path) -> None:
    for number in range(3):
        FRAME[number * 3 : number * 3 + 3].write_parquet(tmp_path / f"p{number}.parquet")
    assert prepare(tmp_path / "p*.parquet", tmp_path / "out").items.tolist() == list(range(9))
    FRAME[:2].write_parquet(tmp_path / "p*.parquet")
    assert prepare(tmp_path / "p*.parquet", tmp_path / "named").items.tolist() == [0, 1]
    (tmp_path / "q.csv").touch()
    with pytest.raises(DataError, match=r"q.csv, which is no .parquet file"):
        prepare(tmp_path / "[pq].*", tmp_path / "mixed")
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "z*.parquet", tmp_path / "none")


def test_a_pattern_in_a_folder_with_brackets_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "parts1").mkdir()
    FRAME[:1].write_parquet(tmp_path / "parts1" / "part-0.parquet")
    assert prepare(folder / "part-*.parquet", tmp_path / "out").items.tolist() == list(range(9))


def test_folders_named_by_values_are_columns(tmp_path: Path) -> None:
    for user in (1, 2):
        target = tmp_path / "hive" / f"user_id={user}"
        target.mkdir(parents=True)
        FRAME.drop("user_id").head(user).write_parquet(target / "a.parquet")
    frame = read_interactions(tmp_path / "hive")
    assert frame["user_id"].to_list() == [1, 2, 2]


def test_parts_of_other_columns_are_one_line(folder: Path) -> None:
    FRAME.rename({"item_id": "thing"}).write_parquet(folder / "part-3.parquet")
    with pytest.raises(DataError, match="do not have the same columns") as caught:
        read_interactions(folder)
    assert "\n" not in str(caught.value)


def test_folders_inside_are_not_looked_into_unless_they_name_a_value(tmp_path: Path) -> None:
    inside = tmp_path / "run" / "data"
    inside.mkdir(parents=True)
    FRAME.write_parquet(inside / "users.parquet")
    with pytest.raises(DataError, match=r"is a directory without .parquet files"):
        prepare(tmp_path / "run", tmp_path / "out")
    assert is_prepared(tmp_path / "run")


def test_other_folders_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is a directory without .parquet files, not a log"):
        prepare(tmp_path / "empty", tmp_path / "out")
    store = prepare(FRAME, tmp_path / "prepared")
    with pytest.raises(DataError, match="is a prepared dataset, not a log"):
        prepare(store.path, tmp_path / "again")
