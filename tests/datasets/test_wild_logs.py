"""Text logs as people have them: no header, a user a line, stray quotes, ids that stand for nothing."""

import re
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import DataError

T = 1_600_000_000


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(log: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_interactions(log, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"user_column": "item"}, "user,item,time", ("item", "user and item", "item_column")),
        ({"timestamp_column": "item"}, "user,item,time", ("item", "item and time", "item_column")),
        (
            {"user_column": "a", "item_column": "a", "timestamp_column": "c"},
            "a,b,c",
            ("a", "user and item", "user_column"),
        ),
        ({"timestamp_column": "column_1"}, None, ("column_1", "user and time", "user_column")),
    ],
)
def test_one_column_has_one_role(
    tmp_path: Path, options: dict[str, str], columns: str | None, message: tuple[str, str, str]
) -> None:
    path = put(tmp_path / "log.csv", ("" if columns is None else columns + "\n") + f"1,2,{T}\n")
    column, roles, remedy = message
    assert f"column {column!r} is both {roles}; name another column with {remedy}=" in refusal(
        path, **options
    )


@pytest.mark.parametrize(
    ("line", "item"),
    [(f"7,{T},30,5", "column_3"), ("7\t2010-10-19T23:55:27Z\t30.2\t-97.8\t22847", "column_5")],
)
def test_a_time_in_the_second_column_leaves_the_item_to_be_named(
    tmp_path: Path, line: str, item: str
) -> None:
    path = put(tmp_path / "clicks.dat", f"{line}\n{line}\n")
    for options in ({}, {"timestamp_column": "column_2"}):
        message = refusal(path, **options)
        assert "name it with item_column=" in message
        assert "column_2 looks like the time" in message
    read = read_interactions(path, item_column=item)
    assert read["timestamp"].min() > 10**9  # type: ignore[operator]
    assert read["user_id"].to_list() == [7, 7]


def test_what_is_guessed_of_a_file_without_a_header_is_told_in_one_line(tmp_path: Path) -> None:
    path = put(tmp_path / "u.data", f"1\t2\t5\t{T}\n1\t3\t4\t{T + 1}\n")
    told: list[str] = []
    prepare(path, tmp_path / "out", notify=told.append)
    assert told == [
        f"{path}: no header line; taken column_1 as user, column_2 as item, column_4 as time;"
        " not used: column_3; name the columns to choose others"
    ]
    told.clear()
    named = {"user_column": "column_1", "item_column": "column_2", "timestamp_column": "column_4"}
    read_interactions(path, notify=told.append, **named)  # type: ignore[arg-type]
    read_interactions(put(tmp_path / "a.csv", f"user,item,time\n1,2,{T}\n"), notify=told.append)
    assert not told


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("1 8 11 14\n2 15 18\n3 8\n", [(1, 8), (1, 11), (1, 14), (2, 15), (2, 18), (3, 8)]),
        ("1 8 11 14 17\n2 15 18 8 8\n", [(1, i) for i in (8, 11, 14, 17)] + [(2, i) for i in (15, 18, 8, 8)]),
        ("0 5\n1 2 3\n", [(0, 5), (1, 2), (1, 3)]),
        ("0\n1  2\t3 \r\n\n", [(1, 2), (1, 3)]),
        ("1,8,11,14\n2,15,18\n", [(1, 8), (1, 11), (1, 14), (2, 15), (2, 18)]),
        ("1 8 11\n2 15 18 4\n1 9\n", [(1, 8), (1, 11), (1, 9), (2, 15), (2, 18), (2, 4)]),
    ],
)  # fmt: skip
def test_a_user_a_line_is_read_in_the_order_of_the_line(
    tmp_path: Path, text: str, events: list[tuple[int, int]]
) -> None:
    told: list[str] = []
    path = put(tmp_path / "train.txt", text)
    read = read_interactions(path, notify=told.append)
    assert read.select("user_id", "item_id").rows() == events
    assert "position" in read.columns
    assert told == [f"{path}: read as one line per user, the items in the order of the line"]


def test_few_whole_numbers_a_line_are_read_so_where_it_is_asked_for(tmp_path: Path) -> None:
    path = put(tmp_path / "train.txt", "1 8 11\n2 15 18\n")
    assert "format='sequences' for lines of a user and the items in their order" in refusal(path)
    assert read_interactions(path, format="sequences")["item_id"].to_list() == [8, 11, 15, 18]
    words = put(tmp_path / "words.txt", "ann a b\nbob c\n")
    assert read_interactions(words, format="sequences")["item_id"].to_list() == ["a", "b", "c"]


def test_an_event_a_line_is_not_taken_for_a_user_a_line(tmp_path: Path) -> None:
    for text in (f"1 2 5 {T} 0\n1 3 4 {T + 1} 0\n", "1 2\n1 3\n"):
        frame = put(tmp_path / "log.txt", text)
        if T and str(T) in text:
            assert read_interactions(frame, timestamp_column="column_4")["item_id"].to_list() == [2, 3]
        else:
            assert read_interactions(frame)["item_id"].to_list() == [2, 3]


@pytest.mark.parametrize("lead", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("kind", ["csv", "bare", "movielens", "jsonl", "sequences"])
def test_blank_lines_are_no_rows(tmp_path: Path, lead: int, after: int, kind: str) -> None:
    head, rows = {
        "csv": ("user,item,time", [f"1,2,{T}", f"1,3,{T}"]),
        "bare": ("", [f"1,2,{T}", f"1,3,{T}"]),
        "movielens": ("user::item::rating::time", [f"1::2::5::{T}", f"1::3::5::{T}"]),
        "jsonl": ("", [f'{{"user":1,"item":{item},"time":{T}}}' for item in (2, 3)]),
        "sequences": ("", ["1 2", "1 3 4"]),
    }[kind]
    for end in ("\n", "\r\n"):
        text = end * lead + (head + end if head else "") + end * after + (end + end).join(rows) + end * 2
        read = read_interactions(put(tmp_path / "log.txt", text))
        assert read["item_id"].to_list()[:2] == [2, 3]
        assert len(read) == (3 if kind == "sequences" else 2)


def test_shapes_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    assert "carriage return alone" in refusal(put(tmp_path / "a.csv", f"user,item,time\r1,2,{T}\r"))
    blanks = put(tmp_path / "b.txt", f"user   item  time\n1      2     {T}\n")
    assert "stand apart by several blanks; write one with tr -s" in refusal(blanks)
    nested = put(tmp_path / "c.jsonl", f'{{"user": {{"id": 1}}, "item": [2], "time": {T}}}\n')
    assert "column 'user', row 1: '{\"id\":1}' is no id but an object or a list" in refusal(nested)
    bare = tmp_path / "d.csv"
    bare.write_bytes(f"user,item,time\n1,2,{T}\n".encode("utf-16-le"))
    assert "UTF-16 text without a mark; pass encoding='utf-16-le'" in refusal(bare)
    assert read_interactions(bare, encoding="utf-16-le")["item_id"].to_list() == [2]


def test_options_of_text_mean_nothing_for_other_logs_and_a_line_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [T]})
    frame.write_parquet(tmp_path / "a.parquet")
    read_interactions(tmp_path / "a.parquet", separator=";", notify=told.append)
    assert told == [
        f"{tmp_path / 'a.parquet'}: has no lines of fields, so the separator that was given means nothing"
    ]
    told.clear()
    read_interactions(frame, header=True, notify=told.append)
    assert told == ["frame: has no lines of fields, so the header that was given means nothing"]
    assert "is a Parquet file, whose text has no other encoding" in refusal(
        tmp_path / "a.parquet", encoding="latin-1"
    )


def test_quotation_marks_between_tabs_are_text(tmp_path: Path) -> None:
    names = ['"Heroes', "plain", 'the 12"', '"Weird Al" Yankovic', 'a 12" mix']
    head = "user_id\titem_id\ttimestamp\tartist\n"
    rows = "".join(f"1\t{place}\t{T + place}\t{name}\n" for place, name in enumerate(names))
    read = read_interactions(put(tmp_path / "log.tsv", head + rows))
    assert read["artist"].to_list() == names


def test_a_quoted_header_quotes_the_fields_between_tabs(tmp_path: Path) -> None:
    path = put(tmp_path / "log.tsv", f'"user_id"\t"item_id"\t"timestamp"\n"a\tb"\t"2"\t{T}\n')
    assert read_interactions(path)["user_id"].to_list() == ["a\tb"]
    bare = put(tmp_path / "bare.tsv", f'user_id\titem_id\ttimestamp\n"a"\t2\t{T}\n')
    assert read_interactions(bare)["user_id"].to_list() == ['"a"']
    assert read_interactions(bare, quotes=True)["user_id"].to_list() == ["a"]


def test_a_stray_quotation_mark_between_commas_names_line_and_remedy(tmp_path: Path) -> None:
    rows = "".join(
        f"1,{place},{T + place},{'x' if place != 5 else chr(34) + 'Weird Al' + chr(34) + ' Y'}\n"
        for place in range(9)
    )
    path = put(tmp_path / "log.csv", "user_id,item_id,timestamp,artist\n" + rows)
    message = refusal(path)
    assert "line 7 has a quotation mark that opens or closes no field; pass quotes=False" in message
    assert read_interactions(path, quotes=False)["artist"][5] == '"Weird Al" Y'


@pytest.mark.parametrize(
    "word",
    ["NA", "N/A", "#N/A", r"\N", "<NA>", "-", "NULL", "nil", "NaT", "none", "", " ", "(null)", "undefined"],
)
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_what_stands_for_no_id_is_refused(tmp_path: Path, word: str, column: str) -> None:
    values = {"user_id": "1", "item_id": "2"} | {column: word}
    text = f"user_id,item_id,timestamp\n5,6,{T}\n{values['user_id']},{values['item_id']},{T}\n"
    assert f"column {column!r}, row 2: the id is missing" in refusal(put(tmp_path / "log.csv", text))
    frame = pl.DataFrame(
        {"user_id": ["5", values["user_id"]], "item_id": ["6", values["item_id"]], "timestamp": [T, T]}
    )
    assert f"column {column!r}, row 2: the id is missing" in refusal(frame)


def test_words_that_hold_such_a_word_are_ids(tmp_path: Path) -> None:
    words = ["Nan Goldin", "banana", "n", "a-b", "-1", "nullable"]
    rows = "".join(f"1,{word},{T}\n" for word in words)
    read = read_interactions(put(tmp_path / "log.csv", "user_id,item_id,timestamp\n" + rows))
    assert read["item_id"].to_list() == words


@pytest.mark.parametrize("ids", ["X{}", "{}.0", " {} ", "0{}", "{}"])
def test_items_are_found_by_the_rule_of_ids_or_a_line_says_that_none_is(tmp_path: Path, ids: str) -> None:
    log = pl.DataFrame({"user_id": [1] * 5, "item_id": range(1, 6), "timestamp": [T] * 5})
    lines = "".join(f"{ids.format(item)},Title {item}\n" for item in range(1, 6))
    path = put(tmp_path / "items.csv", "item_id,title\n" + lines)
    told: list[str] = []
    store = prepare(log, tmp_path / "out", items=path, notify=told.append)
    found = store.meta["counts"]["items_with_metadata"]
    if ids in ("X{}", "0{}"):
        assert found == 0
        assert re.fullmatch(
            r".*items.csv: knows 0 of 5 items; its ids are like '(X1|01)', those of the log like 1", told[0]
        )
    else:
        assert found == 5
        assert not told
