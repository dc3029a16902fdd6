"""Bad logs are refused with one line that names file, column, row and value."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.sources.readers import read_interactions
from recsys.errors import ArgumentError, DataError, RecsysError

T = 881_250_949
GOOD = {"user_id": [1, 2, 3], "item_id": [1, 2, 3], "timestamp": [T, T, T]}


def refusal(log: object, kind: type[RecsysError] = DataError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        read_interactions(log, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def csv(path: Path, *lines: str, header: str = "user_id,item_id,timestamp") -> Path:
    file = path / "log.csv"
    file.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.csv: No such file" in refusal(tmp_path / "nowhere.csv")


def test_a_directory_is_no_log(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    assert f"pass {tmp_path / 'ratings.dat'}" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    assert "the file is empty" in refusal(path)


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    assert "a header and no rows" in refusal(csv(tmp_path))


def test_a_frame_without_rows_is_refused() -> None:
    assert "frame: no rows" in refusal(pl.DataFrame(GOOD).clear())


def test_a_missing_column_names_those_present_and_the_nearest(tmp_path: Path) -> None:
    path = csv(tmp_path, f"1,2,{T}", header="user_id,itemm_id,timestamp")
    message = refusal(path)
    assert "no item_id column among user_id, itemm_id, timestamp" in message
    assert "item_column=, perhaps itemm_id" in message
    assert "did you mean 'timestamp'?" in refusal(path, item_column="itemm_id", timestamp_column="timestmp")


def test_a_missing_time_column_names_the_way_without(tmp_path: Path) -> None:
    assert "time_unit='order'" in refusal(csv(tmp_path, "1,2", header="user,item"))


@pytest.mark.parametrize("value", ["", "  ", "NaN", "null", "None", "inf", "-inf"])
def test_a_missing_id_in_text_names_its_row(tmp_path: Path, value: str) -> None:
    message = refusal(csv(tmp_path, f"a,1,{T}", f"{value},2,{T}", f"b,3,{T}"))
    assert "log.csv: column 'user_id', row 2: the id is missing" in message


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_numeric_id_names_its_row(value: float | None) -> None:
    frame = pl.DataFrame(GOOD | {"item_id": [1.0, 2.0, value]}, strict=False)
    message = refusal(frame)
    assert "frame: column 'item_id', row 3: the id is missing" in message


@pytest.mark.parametrize("value", [2.5, 1e300, -(2.0**53)])
def test_a_fractional_or_inexact_numeric_id_is_refused(value: float) -> None:
    message = refusal(pl.DataFrame(GOOD | {"user_id": [1.0, value, 3.0]}))
    assert f"column 'user_id', row 2: {value!r} is not a whole number" in message


@pytest.mark.parametrize(
    ("column", "values"),
    [("user_id", [1, 2**24 + 1, 3]), ("item_id", [1, 2, -(2**24)]), ("timestamp", [T] * 3)],
)
def test_whole_numbers_that_a_narrow_float_has_rounded_are_refused(column: str, values: list[int]) -> None:
    message = refusal(pl.DataFrame(GOOD | {column: pl.Series(values, dtype=pl.Float32)}))
    assert f"column {column!r}, row " in message
    assert "Float32 holds whole numbers up to 16,777,216 only" in message


def test_small_ids_in_a_narrow_float_are_whole_numbers() -> None:
    frame = pl.DataFrame(GOOD | {"user_id": pl.Series([1, 2**24 - 1, 3], dtype=pl.Float32)})
    assert read_interactions(frame)["user_id"].to_list() == [1, 3, 2**24 - 1]


def test_a_fractional_id_in_text_is_refused(tmp_path: Path) -> None:
    assert "row 2: '2.5' is not a whole number" in refusal(csv(tmp_path, f"1,1,{T}", f"2.5,1,{T}"))


def test_an_unsigned_id_beyond_int64_is_text_as_in_a_text_file() -> None:
    frame = pl.DataFrame(GOOD | {"user_id": pl.Series([1, 2**63, 3], dtype=pl.UInt64)})
    assert read_interactions(frame)["user_id"].to_list() == ["1", "3", str(2**63)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [([[1], [2], [3]], "List"), ([True, False, True], "Boolean"), ([b"a", b"b", b"c"], "Binary")],
)
def test_ids_of_a_wrong_type_are_refused(values: list[object], kind: str) -> None:
    message = refusal(pl.DataFrame(GOOD | {"item_id": values}))
    assert f"column 'item_id' has type {kind}" in message


def test_an_all_null_id_column_is_refused() -> None:
    assert "column 'item_id' is empty" in refusal(pl.DataFrame(GOOD | {"item_id": [None] * 3}))


def test_times_of_a_wrong_type_are_refused() -> None:
    message = refusal(pl.DataFrame(GOOD | {"timestamp": [timedelta(seconds=1)] * 3}))
    assert "column 'timestamp' has type Duration" in message


@pytest.mark.parametrize("value", ["", "yesterday", "nan", "12:30"])
def test_an_unreadable_time_names_row_and_value(tmp_path: Path, value: str) -> None:
    message = refusal(csv(tmp_path, f"1,1,{T}", f"1,1,{T}", f"1,1,{value}"))
    assert "log.csv: column 'timestamp', row 3: " in message
    assert repr(value or None) in message
    assert "is not a time" in message


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_a_missing_numeric_time_names_its_row(value: float | None) -> None:
    frame = pl.DataFrame(GOOD | {"timestamp": [1.0, value, 3.0]}, strict=False)
    assert "column 'timestamp', row 2" in refusal(frame)


def test_a_time_before_1970_is_refused() -> None:
    message = refusal(pl.DataFrame(GOOD | {"timestamp": [T, -1, T]}))
    assert "row 2: -1 lies before 1970" in message


def test_a_time_after_2199_is_refused() -> None:
    message = refusal(pl.DataFrame(GOOD | {"timestamp": [T, T, 7_258_118_400]}))
    assert "row 3: 7258118400 lies after the year 2199" in message


@pytest.mark.parametrize(("factor", "unit"), [(1_000, "ms"), (10**6, "us"), (10**9, "ns")])
@pytest.mark.parametrize("text", [False, True])
def test_times_finer_than_seconds_name_the_unit_to_pass(
    tmp_path: Path, factor: int, unit: str, text: bool
) -> None:
    value = T * factor
    log = csv(tmp_path, f"1,1,{value}") if text else pl.DataFrame(GOOD | {"timestamp": [value] * 3})
    message = refusal(log)
    assert "row 1" in message
    assert message.endswith(f"pass time_unit={unit!r}")


def test_a_unit_that_puts_all_events_into_1970_is_refused() -> None:
    assert "all times fall in 1970" in refusal(pl.DataFrame(GOOD), time_unit="ms")


def test_an_unknown_unit_or_format_is_refused(tmp_path: Path) -> None:
    assert "time_unit='min'" in refusal(pl.DataFrame(GOOD), ArgumentError, time_unit="min")
    assert "format='xls'" in refusal(csv(tmp_path, f"1,1,{T}"), ArgumentError, format="xls")


def test_text_in_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"user,item,time\n1,2,{T}\n1,caf\u00e9,{T}\n".encode("latin-1"))
    assert "line 3 is not UTF-8 text" in refusal(path)


def test_a_broken_byte_far_behind_the_head_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    good = f"12345,67890,{T}\n"
    path.write_bytes(f"user,item,time\n{good * 10_000}".encode() + b"\xff,1,5\n")
    assert "line 10002 is not UTF-8 text" in refusal(path)


def test_a_row_with_too_many_fields_names_the_line(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, f"1,1,{T}", f"1,1,{T},9"))
    assert "line 3 has 4 fields, the first line 3" in message


def test_a_row_with_too_few_fields_names_the_row(tmp_path: Path) -> None:
    assert "column 'timestamp', row 2: None" in refusal(csv(tmp_path, f"1,1,{T}", "1,1", f"1,1,{T}"))
    message = refusal(csv(tmp_path, "1,1", f"1,1,{T}"))
    assert "line 2 has 2 fields, the first line 3; write every field" in message


def test_a_wrong_separator_names_the_right_one(tmp_path: Path) -> None:
    message = refusal(csv(tmp_path, f"1,1,{T}"), separator=";")
    assert "only one column found ('user_id,item_id,timestamp'); pass separator=','" in message


def test_one_column_is_no_log(tmp_path: Path) -> None:
    assert "only one column found" in refusal(csv(tmp_path, "1", "2", header="user_id"))


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame(GOOD).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "the Parquet file is damaged or cut off" in refusal(path)


def test_a_parquet_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({name: np.arange(T, T + 5_000) for name in GOOD}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[10:2_000] = b"\xff" * 1_990
    path.write_bytes(content)
    assert "log.parquet: " in refusal(path)


def test_text_named_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_text("user,item,time\n1,2,3\n")
    assert "not a Parquet file" in refusal(path)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.bin"
    path.write_bytes(b"a\0b\0c\n" * 10)
    assert "binary file" in refusal(path)


def test_a_json_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('[{"user": 1}]\n')
    assert "one JSON object per line" in refusal(path)


def test_a_line_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("{'user': 1}\n")
    assert "line 1 is not a JSON object" in refusal(path)
    path.write_text('{"user": 1, "item": 2, "time": 5}\nbroken\n')
    assert "row 2: the id is missing" in refusal(path)
