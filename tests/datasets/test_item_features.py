"""Tags, words and vectors come from every kind of item file, and lie in a prepared dataset as arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import summary
from recsys.errors import ArgumentError, DataError, RecsysError

START_S = 1_000_000_000


def log_of(histories: dict[str, str]) -> pl.DataFrame:
    """A log with an event an hour: items of each user, one letter each."""
    rows = [
        (user, item, START_S + 3_600 * place)
        for user, items in histories.items()
        for place, item in enumerate(items)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


LOG = log_of({"u1": "abcda", "u2": "bcade", "u3": "cdabc"})
ITEMS = pl.DataFrame(
    {
        "item_id": list("dabce"),
        "genres": ["Drama", "Drama|War", "War | Comedy", None, "Western"],
        "year": [1995, 1996, 1995, None, 1999],
        "title": ["The Cat", "The  dog, the cat", "THE 9 cats", "the end", ""],
    }
)


def tags_by_item(store: SequenceStore) -> dict[str, list[tuple[str, str]]]:
    features = store.item_features
    assert features is not None
    names = pl.read_parquet(store.path / "tags.parquet").select("column", "name").rows()
    ids = pl.read_parquet(store.path / "items.parquet")["item_id"]
    return {
        item: [names[tag] for tag in features.tags[features.tag_offsets[v] : features.tag_offsets[v + 1]]]
        for v, item in enumerate(ids)
    }


def test_tags_are_parted_counted_and_weighed(tmp_path: Path) -> None:
    told: list[str] = []
    store = prepare(LOG, tmp_path / "out", items=ITEMS, item_tags="genres,year", notify=told.append)
    # e is only ever a test target: what it alone bears teaches nothing, and is left out.
    assert tags_by_item(store) == {
        "a": [("genres", "Drama"), ("genres", "War"), ("year", "1996")],
        "b": [("genres", "Comedy"), ("genres", "War"), ("year", "1995")],
        "c": [],
        "d": [("genres", "Drama"), ("year", "1995")],
        "e": [],
    }
    table = pl.read_parquet(store.path / "tags.parquet")
    assert table.rows() == [
        ("genres", "Comedy", 1),
        ("genres", "Drama", 2),
        ("genres", "War", 2),
        ("year", "1995", 2),
        ("year", "1996", 1),
    ]
    features = store.item_features
    assert features is not None
    half = np.float32(0.5**0.5)
    assert features.tag_weights.tolist() == [half, half, 1, half, half, 1, 1, 1]
    assert features.n_tags == 5
    assert features.vectors is None
    assert any("no features of 2 of 5 items, such as 'c'" in line for line in told)
    assert "tags: 5, of 3 items" in summary(store)


def test_words_are_those_of_three_trained_items(tmp_path: Path) -> None:
    store = prepare(LOG, tmp_path / "out", items=ITEMS, item_words=["title"])
    # "cat" is on two, "cats" is another word; "the" on all four that train.
    assert tags_by_item(store) == {**{item: [("title", "the")] for item in "abcd"}, "e": []}


def test_tags_stand_in_lists_json_and_typed_headers_alike(tmp_path: Path) -> None:
    lists = [["x", "y"], ["y"], [], ["x", "x", None], None]
    frame = pl.DataFrame({"item_id": list("abcde"), "t": lists})
    written = [None if value is None else json.dumps(value) for value in lists]
    as_text = frame.with_columns(pl.Series("t", written))
    as_text.write_csv(tmp_path / "items.csv")
    frame.write_parquet(tmp_path / "items.parquet")
    frame.write_ndjson(tmp_path / "items.jsonl")
    lines = ["item_id:token\tt:token_seq", "a\tx y", "b\ty", "c\t", "d\tx", "e\t"]
    (tmp_path / "x.item").write_text("\n".join(lines) + "\n")
    long = pl.DataFrame(
        [("a", "t", "x"), ("a", "t", "y"), ("b", "t", "y"), ("d", "t", "x"), ("d", "t", "x")],
        schema=["id", "feature", "value"],
        orient="row",
    )
    pandas = pytest.importorskip("pandas")
    in_pandas = pandas.DataFrame({"item_id": list("abcde"), "t": lists})
    files: list[Any] = [tmp_path / name for name in ("items.csv", "items.parquet", "items.jsonl", "x.item")]
    wanted = {"a": [("t", "x"), ("t", "y")], "b": [("t", "y")], "c": [], "d": [("t", "x")], "e": []}
    prints = set()
    for place, items in enumerate([*files, frame, long, long.to_pandas(), in_pandas]):
        store = prepare(LOG, tmp_path / f"out-{place}", items=items, item_tags="t")
        assert tags_by_item(store) == wanted, place
        prints.add(store.fingerprint)
    assert len(prints) == 1


VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3) / 8 - 1


def test_vectors_come_from_files_columns_arrays_and_functions(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", VECTORS)
    column = pl.Series("emb", VECTORS.tolist())
    as_text = pl.Series("emb", [" ".join(map(str, row)) for row in VECTORS.tolist()])
    ITEMS.with_columns(as_text).write_csv(tmp_path / "items.csv")
    typed = [f"{item}\t{text}" for item, text in zip(ITEMS["item_id"], as_text, strict=True)]
    (tmp_path / "x.item").write_text("\n".join(["item_id:token\temb:float_seq", *typed]) + "\n")
    texts: list[str] = []

    def embed(asked: list[str]) -> Any:
        texts.extend(asked)
        return VECTORS.astype(np.float64)

    given: list[tuple[Any, Any]] = [
        (ITEMS, str(tmp_path / "emb.npy")),
        (ITEMS, tmp_path / "emb.npy"),
        (ITEMS, VECTORS),
        (ITEMS, VECTORS.tolist()),
        (ITEMS, embed),
        (ITEMS.with_columns(column), "emb"),
        (ITEMS.with_columns(column.cast(pl.Array(pl.Float32, 3))), "emb"),
        (tmp_path / "items.csv", "emb"),
        (tmp_path / "x.item", "emb"),
    ]
    prints = set()
    for place, (items, vectors) in enumerate(given):
        store = prepare(LOG, tmp_path / f"out-{place}", items=items, item_vectors=vectors)
        features = store.item_features
        assert features is not None
        assert features.vectors is not None
        assert features.vectors.dtype == np.float16
        assert features.vectors.tolist() == VECTORS[[1, 2, 3, 0, 4]].tolist()
        assert (features.n_tags, features.tag_offsets.tolist()) == (0, [0] * 6)
        prints.add(store.fingerprint)
    assert len(prints) == 1
    assert texts == ITEMS["title"].to_list()


def test_an_item_without_a_vector_has_zeros(tmp_path: Path) -> None:
    told: list[str] = []
    column = pl.Series("emb", [[1.0, 2.0], None, [3.0, 4.0], [], [5.0, 6.0]])
    store = prepare(
        LOG, tmp_path / "out", items=ITEMS.with_columns(column), item_vectors="emb", notify=told.append
    )
    assert store.item_features is not None
    assert store.item_features.vectors is not None
    assert store.item_features.vectors.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2], [5, 6]]
    assert any("no features of 2 of 5 items, such as 'a'" in line for line in told)
    assert "vectors of 2: of 3 items" in summary(store)


def test_a_dataset_without_features_is_what_it_was(tmp_path: Path) -> None:
    plain = prepare(LOG, tmp_path / "plain", items=ITEMS)
    assert plain.item_features is None
    assert not {name for name in plain.meta["files"] if "tag" in name or "vector" in name}
    assert set(plain.meta["ids"]) == {"users", "items"}
    assert not {name for name in plain.meta["options"] if "tags" in name or name.startswith("keep")}
    assert prepare(LOG, tmp_path / "none").fingerprint == plain.fingerprint
    assert prepare(LOG, tmp_path / "tags", items=ITEMS, item_tags="genres").fingerprint != plain.fingerprint


def test_features_decide_what_a_dataset_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(LOG, out, items=ITEMS, item_tags="genres", item_vectors=VECTORS)
    again = prepare(LOG, out, items=ITEMS, item_tags=["genres"], item_vectors=VECTORS.astype(np.float64))
    assert again.fingerprint == first.fingerprint
    for other in ({"item_tags": "year"}, {"item_vectors": VECTORS + 1}, {"keep_cold": True}):
        options: dict[str, Any] = {"item_tags": "genres", "item_vectors": VECTORS} | other
        with pytest.raises(DataError, match="other options"):
            prepare(LOG, out, items=ITEMS, **options)
    renamed = ITEMS.with_columns(pl.col("genres").str.replace("Drama", "Dramas"))
    changed = prepare(LOG, tmp_path / "names", items=renamed, item_tags="genres", item_vectors=VECTORS)
    # The same arrays, other names: a model of one would misread the other.
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize("name", ["item_tags", "item_tag_offsets", "item_tag_weights", "item_vectors"])
def test_a_flipped_byte_or_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    store = prepare(LOG, tmp_path / "out", items=ITEMS, item_tags="genres", item_vectors=VECTORS)
    path = store.path / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        SequenceStore.open(store.path)
    path.unlink()
    with pytest.raises(DataError, match=f"{name}.npy: the file is missing"):
        SequenceStore.open(store.path)


def test_cold_items_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    # Of the last events, f never trains; g and h are in the item file alone.
    log = log_of({"u1": "abcab", "u2": "bcaba", "u3": "cabaf"})
    items = pl.DataFrame({"item_id": list("habcfg"), "t": ["x", "x", "y", "y", "x", "z"]})
    split: dict[str, Any] = {"split": "temporal", "valid_fraction": 0.2, "test_fraction": 0.2}
    dropped = prepare(log, tmp_path / "dropped", items=items, item_tags="t", **split)
    assert (dropped.n_items, dropped.n_events) == (3, 14)
    kept = prepare(log, tmp_path / "kept", items=items, item_tags="t", keep_cold=True, **split)
    assert pl.read_parquet(kept.path / "items.parquet")["item_id"].to_list() == list("abcfgh")
    assert kept.n_events == 15
    assert kept.item_counts().tolist()[3:] == [0, 0, 0]
    assert kept.items[kept.offsets[-1] - 1] == 3
    # z is borne by an untrained item alone.
    assert tags_by_item(kept) == {i: [("t", "y" if i in "bc" else "x")] for i in "abcfh"} | {"g": []}
    assert "kept as cold: 1 events of items without a training event" in summary(kept)
    assert "items without a training event: 3 of 6" in summary(kept)


def _bad_vectors(row: int, value: float) -> np.ndarray[Any, Any]:
    vectors = VECTORS.copy()
    vectors[row, 1] = value
    return vectors


def _column(name: str, values: list[Any]) -> pl.DataFrame:
    return ITEMS.with_columns(pl.Series(name, values, strict=False))


BAD: list[tuple[Any, dict[str, Any], type[RecsysError], str]] = [
    (None, {"item_tags": "genres"}, ArgumentError, "item_tags= takes what it asks for from items="),
    (ITEMS, {"item_tags": "genre"}, DataError, "no column 'genre'; did you mean 'genres'"),
    (ITEMS, {"item_tags": "item_id"}, DataError, "'item_id' holds the ids"),
    (ITEMS, {"item_tags": "genres,"}, ArgumentError, "has an empty name"),
    (ITEMS, {"item_tags": "genres,genres"}, ArgumentError, "names 'genres' twice"),
    (ITEMS, {"item_tags": 3}, ArgumentError, "item_tags=3 names no columns"),
    (ITEMS, {"item_tags": "title", "item_words": "title"}, ArgumentError, "for tags and for words"),
    (ITEMS, {"item_words": "year"}, DataError, "column 'year' holds numbers, not text"),
    (_column("t", [0.5, 1, 2, 3, 4]), {"item_tags": "t"}, DataError, "column 't' holds fractions"),
    (_column("t", [{"a": 1}] * 5), {"item_tags": "t"}, DataError, "column 't' holds records"),
    (_column("t", ["[1]", "[[2]]", "[]", "[]", "[]"]), {"item_tags": "t"}, DataError, "'a'.*no list of tags"),
    (_column("t", ["", None, "", "", "x"]), {"item_tags": "t"}, DataError, "column 't' holds no tag of"),
    (_column("t", ["a b c d e"] * 2 + [None] * 3), {"item_words": "t"}, DataError, "no word that 3 trained"),
    (pl.concat([ITEMS, ITEMS[1:2]]), {"item_tags": "genres"}, DataError, "'a' stands in rows 2 and 6"),
    (_column("item_id", ["a", None, "c", "d", "e"]), {"item_tags": "genres"}, DataError, "row 2 has no item"),
    (_column("item_id", list("vwxyz")), {"item_tags": "genres"}, DataError, "knows none of the 5 items"),
    (ITEMS, {"item_vectors": "emb"}, DataError, "no column 'emb'; there are title, genres"),
    (ITEMS, {"item_vectors": "year"}, DataError, "column 'year' holds Int64, want a list of numbers"),
    (ITEMS, {"item_vectors": VECTORS[:4]}, DataError, "has 4 rows and items has 5 items"),
    (ITEMS, {"item_vectors": VECTORS[:, 0]}, DataError, r"has shape \(5,\)"),
    (ITEMS, {"item_vectors": VECTORS[:, :0]}, DataError, r"has shape \(5, 0\)"),
    (
        ITEMS,
        {"item_vectors": _bad_vectors(2, np.nan)},
        DataError,
        "NaN or infinity in the vector of item 'b'",
    ),
    (
        ITEMS,
        {"item_vectors": _bad_vectors(0, -np.inf)},
        DataError,
        "NaN or infinity in the vector of item 'd'",
    ),
    (ITEMS, {"item_vectors": _bad_vectors(4, 7e4)}, DataError, "7e.04 in the vector of item 'e'; divide"),
    (ITEMS, {"item_vectors": VECTORS * 1e-6}, DataError, "multiply the vectors"),
    (ITEMS, {"item_vectors": VECTORS > 0}, DataError, "holds bool, want numbers"),
    (ITEMS, {"item_vectors": [[1], [2, 3]]}, ArgumentError, "item_vectors= is no array"),
    (ITEMS, {"item_vectors": lambda texts: None}, ArgumentError, "gives is no array of numbers but NoneType"),
    (ITEMS, {"item_vectors": lambda texts: VECTORS[1:]}, DataError, "has 4 rows and items has 5"),
    (ITEMS.drop("title"), {"item_vectors": lambda texts: VECTORS}, DataError, "has no title to make vectors"),
    (
        _column("e", [[1, 2], [3], None, [], [4, 5]]),
        {"item_vectors": "e"},
        DataError,
        "1 numbers for item 'a'",
    ),
    (_column("e", ["1 2", "3 x", "", "", ""]), {"item_vectors": "e"}, DataError, "something else.*item 'a'"),
    (_column("e", ["", None, "", "", None]), {"item_vectors": "e"}, DataError, "column 'e' holds no vector"),
    (ITEMS, {"keep_cold": "yes"}, ArgumentError, "keep_cold='yes'"),
]


@pytest.mark.parametrize(("items", "options", "kind", "words"), BAD, ids=range(len(BAD)))
def test_bad_features_are_named(
    tmp_path: Path, items: Any, options: dict[str, Any], kind: type[RecsysError], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        prepare(LOG, tmp_path / "out", items=items, **options)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_ids_that_are_one_to_the_log_are_refused(tmp_path: Path) -> None:
    log = log_of({"u1": "1212", "u2": "2121"}).with_columns(pl.col("item_id").cast(pl.Int64))
    items = pl.DataFrame({"item_id": ["1", "1.0", "2"], "t": ["x", "y", "x"]})
    with pytest.raises(DataError, match=r"items '1' and '1.0' are one item of the log"):
        prepare(log, tmp_path / "out", items=items, item_tags="t")
    words = pl.DataFrame({"item_id": ["1", "new", "2"], "t": ["x", "y", "x"]})
    with pytest.raises(DataError, match="item 'new' is no whole number"):
        prepare(log, tmp_path / "out", items=words, item_tags="t", keep_cold=True)
    long = pl.DataFrame({"id": [1, 2], "feature": ["t", "t"], "value": ["x", "y"]})
    with pytest.raises(DataError, match="a line for each feature"):
        prepare(log, tmp_path / "out", items=long, item_vectors=np.ones((2, 2)))
