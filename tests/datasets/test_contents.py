"""Files are read, or refused in one line, by what they hold and not by their names."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import DataError

T = 1_600_000_000
ROWS = [(user, user % 7, T + user) for user in range(1, 400)]
TEXT = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_interactions(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv", "log.gz", "log.csv.zst", "log"])
@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_gzip_and_zstd_are_read_whatever_the_name_and_in_members(
    tmp_path: Path, name: str, compress: object
) -> None:
    assert callable(compress)
    half = len(TEXT) // 2
    content = compress(TEXT[:half].encode()) + compress(TEXT[half:].encode())
    assert read_interactions(put(tmp_path / name, content)).rows() == ROWS


def _zip(name: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, TEXT)
    return target.getvalue()


def _tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("log.csv")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT.encode()))
    return target.getvalue()


def _arrow() -> bytes:
    target = io.BytesIO()
    pl.DataFrame({"user_id": [1]}).write_ipc(target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (bz2.compress(TEXT.encode()), "bzip2", "bunzip2 -k"),
        (lzma.compress(TEXT.encode()), "xz", "unxz -k"),
        (_zip("log.csv"), "a zip archive", "unzip"),
        (_zip("xl/workbook.xml"), "an Excel file", "save the sheet as CSV"),
        (_tar(), "a tar archive", "tar -xf"),
        (gzip.compress(_tar()), "a tar archive", "tar -xf"),
        (_arrow(), "an Arrow (Feather) file", "polars.read_ipc"),
        (pickle.dumps({"user_id": [1]}), "a Python pickle", "write Parquet or CSV"),
        (b"SQLite format 3\0" + bytes(84), "an SQLite database", "CSV"),
        (b"ORC" + bytes(50), "an ORC file", "Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>404</html>\n", "a page of HTML or XML", "fetch the file itself"),
        (TEXT.encode("utf-16"), "UTF-16 text", "encoding='utf-16'"),
        (b"a,b\0\1" * 30, "a binary file", "Parquet or text"),
    ],
)
def test_other_files_are_named_with_a_remedy(tmp_path: Path, content: bytes, kind: str, remedy: str) -> None:
    message = refusal(put(tmp_path / "log.csv", content))
    assert kind in message
    assert remedy in message


def test_the_remedy_for_an_arrow_file_works(tmp_path: Path) -> None:
    path = tmp_path / "log.arrow"
    pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row").write_ipc(path)
    code = refusal(path).split('-c "')[1].rstrip('"')
    exec(code, {})
    assert read_interactions(f"{path}.parquet").rows() == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "gbk", "utf-8-sig"])
def test_a_named_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    text = "user_id,item_id,timestamp\n" + f"用户1,2,{T}\n" * 3
    path = put(tmp_path / "log.csv", text.encode(encoding))
    assert read_interactions(path, encoding=encoding)["user_id"].to_list() == ["用户1"] * 3
    if encoding == "gbk":
        assert "line 2 is not UTF-8 text; name its encoding with encoding=" in refusal(path)
        assert "not ascii text" in refusal(path, encoding="ascii")


def test_a_file_that_is_not_utf_8_far_behind_is_named_by_its_line(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp\n" + f"1,2,{T}\n" * 9_000
    path = put(tmp_path / "log.csv", text.encode() + f"Léon,2,{T}\n".encode("latin-1"))
    assert "line 9002 is not UTF-8 text; name its encoding with encoding=" in refusal(path)


def test_lines_longer_than_a_look_are_read(tmp_path: Path) -> None:
    note = "é" * 70_001
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(f'{{"note": "{note}", "user_id": {u}, "item_id": 2, "timestamp": {T}}}\n' for u in (1, 2)),
        encoding="utf-8",
    )
    assert read_interactions(path)["user_id"].to_list() == [1, 2]
    csv = tmp_path / "log.csv"
    csv.write_text(f"user_id,note,item_id,timestamp\n1,{note},2,{T}\n", encoding="utf-8")
    assert read_interactions(csv)["item_id"].to_list() == [2]


def test_a_cut_off_gzip_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(put(tmp_path / "log.csv.gz", gzip.compress(TEXT.encode())[:60]))


@pytest.mark.parametrize("name", ["run.yaml", "notes.md", "pyproject.toml"])
def test_a_settings_file_is_no_log(tmp_path: Path, name: str) -> None:
    assert "is no log; pass format='csv'" in refusal(put(tmp_path / name, b"a: 1\nb: 2\n"))
    assert "looks like YAML" in refusal(put(tmp_path / "a.txt", b"a: 1\nb: 2\n"))


def test_a_format_that_contradicts_the_file_is_said(tmp_path: Path) -> None:
    parquet = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [T]}).write_parquet(parquet)
    assert "is a Parquet file, not csv; leave out format=" in refusal(parquet, format="csv")
    text = put(tmp_path / "log.csv", TEXT.encode())
    assert "not a Parquet file" in refusal(text, format="parquet")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(TEXT, encoding="utf-8"))
    writer.start()
    store = prepare(pipe, tmp_path / "out")
    writer.join()
    assert store.n_events == len(ROWS)
    assert store.meta["source"]["file"] == "pipe"


def test_a_device_is_no_file() -> None:
    with pytest.raises(DataError, match="is a device, not a file"):
        read_interactions("/dev/null")


@pytest.mark.parametrize("address", ["https://x.org/log.csv", "s3://bucket/log.parquet", "hdfs://a/b"])
def test_an_address_is_no_file(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match="is an address, not a file; download it"):
        prepare(address, tmp_path / "out")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_names_are_names(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")
    other = frame.head(3).with_columns(pl.col("user_id") + 1_000)
    for name, content in (("log[12]", frame), ("log1", other), ("star*", frame), ("starling", other)):
        path = tmp_path / f"{name}.{suffix}"
        content.write_csv(path) if suffix == "csv" else content.write_parquet(path)
    for name in ("log[12]", "star*"):
        assert read_interactions(tmp_path / f"{name}.{suffix}").rows() == ROWS
        store = prepare(tmp_path / f"{name}.{suffix}", tmp_path / f"out[{name}]")
        assert store.n_events == len(ROWS)
