"""Ids find their indices however they are written, and indices their ids."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import Vocabulary, item_table, item_vocabulary, user_vocabulary
from recsys.errors import DataError, UnknownIdError

NUMBERS = Vocabulary(pl.Series([-5, 0, 42, 2**40]))
WORDS = Vocabulary(pl.Series(["007", "42", "a", "caf\u00e9", "\u732b"]))


@pytest.mark.parametrize(
    "asked",
    [
        [42, -5, 7],
        ["42", " -5", "7"],
        np.array([42, -5, 7]),
        np.array([42, -5, 7], dtype=np.int16),
        np.array([42.0, -5.0, 7.5]),
        pl.Series([42, -5, 7]),
        pl.Series(["42", "-5", "7"]),
        (42.0, "-5", None),
        [42, -5, "forty-two"],
        [42, -5, 2**70],
        [42, -5, float("inf")],
    ],
)
def test_numbers_are_found_however_they_are_given(asked: object) -> None:
    found = NUMBERS.encode(asked)  # type: ignore[arg-type]
    assert found.tolist() == [2, 0, -1]
    assert found.dtype == np.int32


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("repeat", [1, 200])
def test_words_are_found_few_or_many_at_a_time(repeat: int, table: bool) -> None:
    words = Vocabulary(WORDS.ids)
    if table:
        words.keep_table()
    asked = ["\u732b", "caf\u00e9", "zzz", "", "007", 42, 7, None, "A"] * repeat
    found = words.encode(asked)
    assert found.tolist() == [4, 3, -1, -1, 0, 1, -1, -1, -1] * repeat
    assert found.dtype == np.int32
    assert words.encode(pl.Series(asked[:2])).tolist() == [4, 3]


def test_nothing_asked_is_nothing_found() -> None:
    assert NUMBERS.encode([]).tolist() == []
    assert WORDS.encode([]).tolist() == []


def test_every_id_of_a_random_vocabulary_comes_back() -> None:
    rng = np.random.default_rng(0)
    ids = sorted({f"{value:x}" for value in rng.integers(0, 10**9, 2_000)})
    vocabulary = Vocabulary(pl.Series(ids))
    order = rng.permutation(len(ids))
    assert vocabulary.encode(vocabulary.decode(order)).tolist() == order.tolist()
    assert vocabulary.encode(vocabulary.decode(order[:50])).tolist() == order[:50].tolist()


def test_indices_out_of_range_are_refused() -> None:
    assert NUMBERS.decode([3, 0]).to_list() == [2**40, -5]
    for index in (-1, 4):
        with pytest.raises(UnknownIdError, match="outside"):
            NUMBERS.decode([index])


def test_unknown_ids_are_named_where_all_are_required() -> None:
    assert WORDS.require(["a", "42"]).tolist() == [2, 1]
    with pytest.raises(UnknownIdError, match="item 'zzz' and 1 more is not in the log"):
        WORDS.require(["a", "zzz", "yyy"], "item")


@pytest.mark.parametrize("ids", [[2, 1], [1, 1], ["b", "a"], [1.5, 2.5], [1, None]])
def test_a_vocabulary_out_of_order_is_refused(ids: list[object]) -> None:
    with pytest.raises(DataError, match="vocabulary"):
        Vocabulary(pl.Series(ids))


def test_the_digest_tells_vocabularies_apart() -> None:
    assert Vocabulary(pl.Series([1, 2])).digest() == Vocabulary(pl.Series(["1", "2"])).digest()
    assert Vocabulary(pl.Series([1, 2])).digest() != Vocabulary(pl.Series([1, 3])).digest()


def test_a_store_names_its_users_and_items(store: SequenceStore, log: pl.DataFrame) -> None:
    assert user_vocabulary(store).ids.to_list() == sorted(set(log["user_id"]))
    assert item_vocabulary(store).ids.to_list() == sorted(set(log["item_id"]))
    assert item_table(store)["count"].to_list() == store.item_counts().tolist()


def test_a_vocabulary_of_another_size_is_refused(store: SequenceStore) -> None:
    pl.DataFrame({"user_id": [1, 2]}).write_parquet(store.path / "users.parquet")
    with pytest.raises(DataError, match=r"holds 2 ids, 12 belong there"):
        user_vocabulary(store)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file is missing"):
        Vocabulary.read(tmp_path / "users.parquet", "user_id")
    (tmp_path / "users.parquet").write_bytes(b"PAR1rubbish")
    with pytest.raises(DataError, match=r"users\.parquet"):
        Vocabulary.read(tmp_path / "users.parquet", "user_id")
