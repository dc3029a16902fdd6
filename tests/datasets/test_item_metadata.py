"""Titles are found in every kind of item file and joined to the catalog by id."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.vocabulary import item_table
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.reading.item_metadata import item_rows, read_item_metadata, read_movielens_titles
from recsys.errors import DataError

TITLES = [(1, "Toy Story (1995)"), (2, "Misérables, Les (1995)")]


def titles(path: Path) -> list[tuple[object, ...]]:
    return read_item_metadata(path).select(pl.col("item_id").cast(pl.Int64), "title").rows()


def test_movies_dat_reads_in_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes("".join(f"{i}::{t}::Drama|War\n" for i, t in TITLES).encode("latin-1"))
    assert titles(path) == TITLES
    assert read_item_metadata(path)["genres"].to_list() == ["Drama|War"] * 2


def test_u_item_reads_title_and_genre_flags(tmp_path: Path) -> None:
    flags = ["0"] * 19
    flags[3], flags[5] = "1", "1"
    lines = [f"{i}|{t} |01-Jan-1995||http://x|{'|'.join(flags)}\n" for i, t in TITLES]
    path = tmp_path / "u.item"
    path.write_bytes("".join(lines).encode("latin-1"))
    assert titles(path) == TITLES
    assert read_item_metadata(path)["genres"].to_list() == ["Animation|Comedy"] * 2


def test_a_line_of_neither_form_is_refused() -> None:
    with pytest.raises(DataError, match="item file, line 2"):
        read_movielens_titles(b"1::a::b\n1|a\n")


def test_recbole_item_gets_its_year_back(tmp_path: Path) -> None:
    path = tmp_path / "x.item"
    path.write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\n"
        "1\tToy Story\t1995\n2\tMisérables, Les\t1995\n3\tunknown\tV\n",
        encoding="utf-8",
    )
    assert titles(path) == [*TITLES, (3, "unknown")]


def test_csv_and_parquet_and_json_lines_read(tmp_path: Path) -> None:
    frame = pl.DataFrame(TITLES, schema=["productId", "name"], orient="row")
    frame = frame.with_columns(price=pl.Series([1.5, None]))
    frame.write_csv(tmp_path / "items.csv")
    frame.write_parquet(tmp_path / "items.parquet")
    frame.write_ndjson(tmp_path / "items.jsonl")
    for name in ("items.csv", "items.parquet", "items.jsonl"):
        assert titles(tmp_path / name) == TITLES
        assert read_item_metadata(tmp_path / name).columns == ["item_id", "title", "price"]


def test_a_file_without_titles_keeps_its_other_columns(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [1, 1, 2], "category": ["a", "b", "c"], "count": [1, 2, 3]}).write_parquet(
        tmp_path / "items.parquet"
    )
    frame = read_item_metadata(tmp_path / "items.parquet")
    assert frame.to_dicts() == [{"item_id": 1, "category": "a"}, {"item_id": 2, "category": "c"}]


@pytest.mark.parametrize("text", ["1,a\n2,b\n", "id_of_it,title\n1,a\n"])
def test_a_file_without_an_item_column_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(DataError, match="item"):
        read_item_metadata(tmp_path / "items.csv")


def test_rows_follow_the_catalog_and_unknown_items_stay_empty() -> None:
    metadata = pl.DataFrame({"item_id": ["30", "10", "x"], "title": ["c", "a", "?"]})
    table, titled = item_rows(pl.Series([10, 20, 30]), np.array([5, 0, 2]), metadata)
    assert table.rows() == [(10, 5, "a"), (20, 0, None), (30, 2, "c")]
    assert table.columns == ["item_id", "count", "title"]
    assert titled == 2


def test_number_metadata_joins_a_text_catalog() -> None:
    metadata = pl.DataFrame({"item_id": [10, 30], "title": ["a", "c"]})
    table, titled = item_rows(pl.Series(["10", "x"]), np.array([1, 1]), metadata)
    assert table["title"].to_list() == ["a", None]
    assert titled == 1


def test_a_frame_of_items_is_read_as_a_file_is(tmp_path: Path) -> None:
    log = pl.DataFrame({"user_id": [1, 1], "item_id": [10, 20], "timestamp": [1, 2]})
    items = {"item_id": ["10", " 20.0"], "title": ["Ten", "Twenty"]}
    for number, given in enumerate((items, pl.DataFrame(items))):
        store = prepare(log, tmp_path / f"out-{number}", items=given)
        assert item_table(store)["title"].to_list() == ["Ten", "Twenty"]
    assert prepare(log, tmp_path / "out-0", items=items).path == tmp_path / "out-0"
    with pytest.raises(DataError, match="made from another log or with other options"):
        prepare(log, tmp_path / "out-0", items={**items, "title": ["X", "Y"]})
    with pytest.raises(DataError, match="items: no item column among thing"):
        prepare(log, tmp_path / "other", items={"thing": [1]})


def test_movies_dat_is_utf_8_or_latin_1() -> None:
    for encoding in ("utf-8", "latin-1"):
        titles = read_movielens_titles("1::Léon (1994)::Drama\r\n".encode(encoding))
        assert titles["title"].to_list() == ["Léon (1994)"]
