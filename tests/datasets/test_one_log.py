"""One log in many formats gives one prepared dataset: the same arrays, the same ids."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys.datasets.preparing.prepare import prepare

T = 1_600_000_000

USERS: dict[str, list[Any]] = {
    "small": [3, 10, 2],
    "large": [1_234_567_890_123_456_789, 2, 9_223_372_036_854_775_807],
    "beyond": [18_446_744_073_709_551_615, 2, 3],
    "text": ["b", "a", "x y"],
    "zeros": ["007", "7", "8"],
    "negative": [-5, 0, 5],
}


def frame_of(users: list[Any]) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    n = 60
    ids = pl.Series(
        "user_id", users, dtype=pl.UInt64 if max(map(str, users), key=len) == str(2**64 - 1) else None
    )
    return pl.DataFrame(
        {
            "user_id": ids.gather(rng.integers(0, 3, n)),
            "item_id": [f"item {value}" for value in rng.integers(0, 9, n)],
            "timestamp": T + rng.integers(0, 20, n),
        }
    )


def _text(frame: pl.DataFrame, path: Path, separator: str) -> Path:
    frame.write_csv(path, separator=separator)
    return path


def _bare(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_csv(path, separator="\t", include_header=False)
    return path


def _gzip(frame: pl.DataFrame, path: Path) -> Path:
    path.write_bytes(gzip.compress(frame.write_csv().encode()))
    return path


def _jsonl(frame: pl.DataFrame, path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True)), encoding="utf-8")
    return path


def _inter(frame: pl.DataFrame, path: Path) -> Path:
    body = frame.write_csv(separator="\t", include_header=False, quote_style="never")
    path.write_text("user_id:token\titem_id:token\ttimestamp:float\n" + body, encoding="utf-8")
    return path


def _movielens(frame: pl.DataFrame, path: Path) -> Path:
    lines = ("::".join(map(str, (user, item, 5, time))) for user, item, time in frame.iter_rows())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _parquet(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path


def _parts(frame: pl.DataFrame, path: Path) -> Path:
    path.mkdir()
    frame[:20].write_parquet(path / "a.parquet")
    frame[20:].write_parquet(path / "b.parquet")
    return path


FORMATS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": lambda frame, folder: _text(frame, folder / "log.csv", ","),
    "tsv": lambda frame, folder: _text(frame, folder / "log.tsv", "\t"),
    "headerless": lambda frame, folder: _bare(frame, folder / "u.data"),
    "gzip": lambda frame, folder: _gzip(frame, folder / "log.csv.gz"),
    "json lines": lambda frame, folder: _jsonl(frame, folder / "log.jsonl"),
    "inter": lambda frame, folder: _inter(frame, folder / "log.inter"),
    "movielens": lambda frame, folder: _movielens(frame, folder / "ratings.dat"),
    "parquet": lambda frame, folder: _parquet(frame, folder / "log.parquet"),
    "parts": lambda frame, folder: _parts(frame, folder / "parts"),
    "parquet of text": lambda frame, folder: _parquet(
        frame.with_columns(pl.col("user_id").cast(pl.String)), folder / "text.parquet"
    ),
    "polars": lambda frame, folder: frame,
    "categories": lambda frame, folder: frame.with_columns(
        pl.col("user_id", "item_id").cast(pl.String).cast(pl.Categorical)
    ),
    "arrow": lambda frame, folder: pa.table({name: frame[name].to_list() for name in frame.columns}),
    "rows": lambda frame, folder: frame.rows(),
    "columns": lambda frame, folder: {name: frame[name].to_list() for name in frame.columns},
    "datetimes": lambda frame, folder: frame.with_columns(pl.from_epoch("timestamp")),
    "text dates": lambda frame, folder: _text(
        frame.with_columns(pl.from_epoch("timestamp").cast(pl.String)), folder / "dates.csv", ","
    ),
}


@pytest.mark.parametrize("kind", USERS)
def test_all_formats_give_one_dataset(kind: str, tmp_path: Path) -> None:
    frame = frame_of(USERS[kind])
    found = {}
    for name, write in FORMATS.items():
        if kind == "beyond" and name in ("arrow", "rows", "columns"):
            continue  # Python's own numbers have no type that says how large they may be
        found[name] = prepare(write(frame, tmp_path), tmp_path / f"prepared {name}").fingerprint
    assert len(set(found.values())) == 1, found


def test_whole_floats_are_the_same_ids(tmp_path: Path) -> None:
    frame = frame_of([3, 10, 2])
    floats = frame.with_columns(pl.col("user_id").cast(pl.Float64))
    first = prepare(frame, tmp_path / "first").fingerprint
    for name in ("csv", "json lines", "parquet", "polars", "rows"):
        other = tmp_path / name
        other.mkdir()
        assert prepare(FORMATS[name](floats, other), other / "out").fingerprint == first
