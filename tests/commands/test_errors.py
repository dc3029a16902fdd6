"""What errors promise, on every mistake of a table: one line, exit code 2, what is named, nothing left."""

import contextlib
import gzip
import hashlib
import io
import re
import shlex
import shutil
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.commands.app import main
from tests.commands.provoked_errors import ALL

TINY = (
    *("--set=encoder.d_model=16", "--set=encoder.n_layers=1", "--set=encoder.d_ff=16"),
    *("--set=encoder.max_length=16", "--set=training.batch_events=256", "--set=training.epochs=1"),
)
PYTHON = re.compile(
    r"Traceback|\bNone\b|\b(True|False)\b|<class|<built-in|(?<!\S)[a-z]+_?[a-z_]*=(?=['\"\s,)]|$)|"
    r"\b(polars|numpy|torch|builtins|keyword argument|dtype|NoneType|TypeError|ValueError)\b"
)
"""Words of the program's language, which no command speaks."""


def _recsys(*arguments: str) -> tuple[int, str, str]:
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["recsys", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            main()
        except SystemExit as leaving:
            return int(leaving.code or 0), out.getvalue(), err.getvalue()
        finally:
            sys.argv = argv
    raise AssertionError("main left without an exit code")


def _make(*arguments: object) -> None:
    code, _, err = _recsys(*map(str, arguments))
    assert code == 0, err


def _with_columns(log: pl.DataFrame) -> pl.DataFrame:
    """A log with what came with its events."""
    place = pl.int_range(pl.len())
    return log.with_columns(
        pl.when(place % 3 == 0).then(pl.lit("buy")).otherwise(pl.lit("view")).alias("action"),
        pl.when(place % 2 == 0).then(pl.lit("phone")).otherwise(pl.lit("tv")).alias("device"),
        pl.lit("").alias("empty"),
        pl.when(place == 1).then(pl.lit(-1)).otherwise(pl.lit(1)).alias("debt"),
        pl.lit(0).alias("nothing"),
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame) -> dict[str, str]:
    """Runs, logs and odd files, by the names of the table."""
    folder = tmp_path_factory.mktemp("errors")
    names = ("run", "timed", "clocked", "data", "order", "bad", "out", "featured", "indexed", "read")
    found = {name: folder / name for name in names} | {"log": folder / "log.csv"}
    log.write_csv(found["log"])
    _make("prepare", found["log"], "--out", found["data"], "--time-zone", "+01:00")
    _make("prepare", found["log"], "--out", found["order"], "--time-unit", "order")
    _make("train", found["log"], "--out", found["run"], *TINY)
    _make("train", found["log"], "--out", found["timed"], "--set=encoder.time_bias=16", *TINY)
    _make("train", found["data"], "--out", found["clocked"], "--clock", *TINY)
    bad = found["bad"]
    bad.mkdir()
    rows = found["log"].read_text()
    first = "user_id,item_id,timestamp\n"
    texts = {
        "empty.csv": "",
        "empty.txt": "\n",
        "header.csv": first,
        "odd.csv": "who,what,when\n1,2,3\n1,3,4\n2,2,5\n",
        "short.csv": f"{first}1,2,1000000000\n",
        "words.csv": f"{first}1,2,yesterday\n1,3,today\n2,2,now\n",
        "milliseconds.csv": re.sub(r",(\d{10})\n", r",\g<1>000\n", rows),
        "other.csv": re.sub(r"\n(\d+),", r"\n9\g<1>,", rows),
        "list.yaml": "a: 1\nb: 2\n",
        "unknown.txt": "unknown-item\n",
        "not.toml": "[training\n",
        "section.toml": "[trainer]\nepochs = 1\n",
        "type.toml": '[encoder]\nd_model = "abc"\n',
        "key.toml": "[training]\nepoch = 1\n",
        "columns.csv": _with_columns(log).write_csv(),
    }
    columns = "item_id,name,genres,empty,lists,rare,ragged,nan,inf,large,small"
    item = "{0},film {0},Drama|War,,{1},{0}x,{2},{3},{4},{5},{6}"
    odd = {
        1: ("[1]", "1 2", "1 nan", "1 inf", "1 99999", "0 1e-9"),
        2: ("[[1]]", "1", "1 2", "1 2", "1 2", "0 0"),
    }
    lines = [item.format(number, *odd.get(number, odd[1])) for number in range(1, 10)]
    texts["items.csv"] = "\n".join([columns, *lines, ""])
    texts["users.csv"] = "user_id,age\n1,20\n2,30\n"
    texts["users-twice.csv"] = "user_id,age\n1,20\n2,30\n1,20\n"
    texts["users-others.csv"] = "user_id,age\nx,20\ny,30\n"
    texts["twice.csv"] = "item_id,genres\n1,a\n2,b\n1,c\n"
    texts["nobody.csv"] = "item_id,genres\n1,a\n,b\n3,c\n"
    texts["others.csv"] = "item_id,genres\nx,a\ny,b\n"
    texts["score.item"] = "item_id:token\tscore:float\n1\t0.5\n2\t1.5\n"
    for name, text in texts.items():
        (bad / name).write_text(text)
    _with_features(folder / "items.csv", found, log)
    _make(
        *("train", bad / "columns.csv", "--out", found["read"], "--event-columns", "action"),
        *("--request-columns", "device", "--set=encoder.event_columns=action"),
        *("--set=encoder.request_columns=device", *TINY),
    )
    texts = {
        "new.csv": "item_id,kind,title,emb\n900,a,film of night,1 2 3\n901,b,film of night,3 2 1\n",
        "new-known.csv": "item_id,kind,title,emb\n900,a,film,1 2 3\n7,b,film,3 2 1\n",
        "new-twice.csv": "item_id,kind,title,emb\n900,a,film,1 2 3\n901,b,film,1 2 3\n900,b,film,3 2 1\n",
        "new-tag.csv": "item_id,kind,title,emb\n900,a,film,1 2 3\n901,bb,film,3 2 1\n",
        "new-short.csv": "item_id,title,emb\n900,film,1 2 3\n",
        "new-narrow.csv": "item_id,kind,title,emb\n900,a,film,1 2\n901,b,film,3 2\n",
        "new-nan.csv": "item_id,kind,title,emb\n900,a,film,1 2 nan\n901,b,film,3 2 1\n",
        "new-text.csv": "item_id,kind,title,emb\nx900,a,film,1 2 3\n",
        "new-nobody.csv": "item_id,kind,title,emb\n900,a,film,1 2 3\n,b,film,3 2 1\n",
        "new-bare.csv": "item_id,kind,title,emb\n900,a,film,1 2 3\n901,,zebra,\n",
        "new-nameless.csv": "thing,kind,title,emb\n900,a,film,1 2 3\n",
    }
    for name, text in texts.items():
        (bad / name).write_text(text)
    (bad / "binary.bin").write_bytes(bytes(range(256)) * 4)
    (bad / "latin.csv").write_bytes((first + "1,café,1\n" * 3).encode("latin-1"))
    with zipfile.ZipFile(bad / "log.zip", "w") as archive:
        archive.write(found["log"], "log.csv")
    whole = io.BytesIO()
    log.write_parquet(whole)
    (bad / "torn.parquet").write_bytes(whole.getvalue()[:-40])
    (bad / "torn.csv.gz").write_bytes(gzip.compress(rows.encode())[:-30])
    log.rename({"user_id": "u"}).write_parquet(bad / "good.parquet")
    np.save(bad / "wide.npy", np.zeros((1, 999), np.float32))
    (bad / "torn.npy").write_bytes((bad / "wide.npy").read_bytes()[:-40])
    return {name: str(path) for name, path in found.items()}


def _with_features(items: Path, found: dict[str, Path], log: pl.DataFrame) -> None:
    """A run of items with features, and one of items without, both with an index."""
    lines = [f"{item},{'abc'[item % 3]},film of night {item},{item % 5} 1 2" for item in range(30)]
    items.write_text("\n".join(["item_id,kind,title,emb", *lines, ""]))
    features = ("--item-tags=kind", "--item-words=title", "--item-vectors=emb")
    data = items.with_name("featured-data")
    _make("prepare", found["log"], "--out", data, "--items", items, *features)
    _make("train", data, "--out", found["featured"], "--set=encoder.item_parts=id+features", *TINY)
    shutil.copytree(found["run"], found["indexed"])
    for name in ("featured", "indexed"):
        _make("index", found[name])


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_harmed(places: dict[str, str]) -> Iterator[None]:
    """No mistake of the table changes a byte of a run, of prepared data or of a log."""
    kept = [
        Path(places[name]) for name in ("run", "timed", "clocked", "data", "order", "log", "bad", "featured")
    ]
    before = _digests(kept)
    yield
    assert _digests(kept) == before


def _digests(paths: list[Path]) -> dict[str, str]:
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


@pytest.mark.parametrize("line", ALL)
def test_a_mistake_is_one_line_with_exit_code_2(line: str, places: dict[str, str]) -> None:
    arguments = [word.format(**places) for word in shlex.split(line)]
    out, named = Path(places["out"]), ALL[line].format(**places)
    code, printed, said = _recsys(*arguments)
    assert (code, printed) == (2, ""), said
    assert said.startswith("Error: "), said
    assert said.count("\n") == 1, said
    assert named in said, said
    own = said
    for word in [*places.values(), *arguments]:
        own = own.replace(word, "")
    assert not PYTHON.search(own), said
    assert not [path for path in out.parent.iterdir() if path.name.startswith((out.name, f".{out.name}"))]


def test_the_table_is_long() -> None:
    assert len(ALL) >= 200
