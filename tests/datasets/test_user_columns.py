"""Columns of users lie in a prepared dataset as one row of codes for each user."""

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


def _log(**columns: list[Any]) -> pl.DataFrame:
    """Three users of five events each, of which the first three train."""
    base = {
        "user_id": [5] * 5 + [7] * 5 + [9] * 5,
        "item_id": list("abcda") + list("bcade") + list("cabed"),
        "timestamp": [START_S + 60 * n for n in range(15)],
    }
    return pl.DataFrame({**base, **columns})


REGION = ["a", None, "b", "c", "c", "b", "b", " b ", "", None, None, None, None, "a", "a"]
AGE = [30] * 5 + [41] * 5 + [None] * 5


def test_a_user_is_what_the_last_training_event_says(tmp_path: Path) -> None:
    store = prepare(_log(region=REGION, age=AGE), tmp_path / "out", user_columns="region,age")
    columns = store.event_columns
    assert columns is not None
    assert [(c.name, c.values, c.edges) for c in columns.users] == [
        ("region", ("b",), None),
        ("age", None, (41.0,)),
    ]
    assert (columns.events, columns.requests) == ((), ())
    assert store.user_codes is not None
    assert store.user_codes.tolist() == [[1, 1], [1, 2], [0, 0]]
    assert np.load(tmp_path / "out" / "user_codes.npy").dtype == np.int32
    lines = summary(store)
    assert "user columns: region (1 value), age (2 ranges)" in lines
    assert "users of several values of region in training, of which the last counts: 1" in lines


def test_nothing_that_is_held_out_decides_what_is_known_of_users(tmp_path: Path) -> None:
    held = [place % 5 >= 3 for place in range(15)]
    other = [("zz" if out else value) for value, out in zip(REGION, held, strict=True)]
    first = prepare(_log(region=REGION), tmp_path / "first", user_columns="region")
    second = prepare(_log(region=other), tmp_path / "second", user_columns="region")
    assert first.fingerprint == second.fingerprint
    turned = [("b" if value == "a" else value) for value in REGION]
    third = prepare(_log(region=turned), tmp_path / "third", user_columns="region")
    assert first.fingerprint == third.fingerprint  # an earlier value is replaced by the last


def test_a_file_of_users_is_joined_by_ids(tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("userId,age,region\n007,1,x\n9,18,north\n5.0,35,south\n11,50,east\n")
    store = prepare(_log(), tmp_path / "out", user_columns=["region", "age"], users=users)
    assert store.event_columns is not None
    assert store.event_columns.users[0].values == ("north", "south")
    assert store.event_columns.users[1].edges == (35.0,)
    assert store.user_codes is not None
    assert store.user_codes.tolist() == [[2, 2], [0, 0], [1, 1]]  # 007 is no spelling of 7
    assert "users found in the users file: 2 of 3" in summary(store)
    frame = pl.DataFrame({"user_id": ["9", "5"], "age": [18, 35], "region": ["north", "south"]})
    same = prepare(_log(), tmp_path / "frame", user_columns=["region", "age"], users=frame)
    assert same.fingerprint == store.fingerprint
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["options"]["user_columns"] == ["region", "age"]
    users.write_text("userId,age,region\n9,18,north\n")
    with pytest.raises(DataError, match="other options"):
        prepare(_log(), tmp_path / "out", user_columns=["region", "age"], users=users)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("u.user", "5|24|M|technician|85711\n7|53|F|other|94043\n9|24|F|other|94043\n"),
        ("users.dat", "5::M::24::10::48067\n7::F::53::16::70072\n9::F::24::7::55117\n"),
    ],
)
def test_movielens_files_of_users_need_no_header(name: str, lines: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(lines)
    store = prepare(_log(), tmp_path / "out", user_columns="age,gender", users=tmp_path / name)
    assert store.user_codes is not None
    assert store.user_codes.tolist() == [[1, 2], [2, 1], [1, 1]]


def test_codes_of_events_end_with_those_of_their_users(tmp_path: Path) -> None:
    kind = ["x", "y", "x"] * 5
    options: dict[str, Any] = {"event_columns": "kind", "user_columns": "region"}
    store = prepare(_log(region=REGION, kind=kind), tmp_path / "out", **options)
    events, requests = store.event_inputs, store.request_inputs
    assert events is not None
    assert requests is not None
    assert events[np.array([0, 4, 5, 14])].tolist() == [[1, 1], [2, 1], [1, 1], [1, 0]]
    assert requests[3:11].tolist() == [[1]] * 7 + [[0]]
    plain = prepare(_log(kind=kind), tmp_path / "plain", event_columns="kind")
    assert plain.event_inputs is plain.event_codes
    assert plain.request_inputs is None


def test_an_array_of_other_users_is_refused(tmp_path: Path) -> None:
    store = prepare(_log(region=REGION), tmp_path / "out", user_columns="region")
    assert store.user_codes is not None
    for codes, said in (
        (np.zeros((2, 1), np.int32), "holds 2 users, 3 belong there"),
        (np.full((3, 1), 2, np.int32), "a code of 'region' lies outside"),
        (np.zeros((3, 2), np.int32), "holds 2 columns, 1 belong there"),
    ):
        store.user_codes = codes
        with pytest.raises(DataError, match=said):
            store._check_ranges()
    assert SequenceStore.open(tmp_path / "out").n_users == 3


def test_what_cannot_be_known_of_users_is_refused(tmp_path: Path) -> None:
    users = pl.DataFrame({"user_id": [5, 7, 9], "age": [1, 2, 3], "none": [None] * 3})

    def refused(error: type[RecsysError], said: str, **options: Any) -> None:
        with pytest.raises(error, match=said) as caught:
            prepare(_log(region=REGION), tmp_path / "out", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    refused(ArgumentError, "name columns by user_columns=", users=users)
    refused(ArgumentError, "names 'age' twice", users=users, user_columns="age,age")
    refused(
        DataError, "no column 'ages'; the columns are .* did you mean 'age'", users=users, user_columns="ages"
    )
    refused(DataError, "'user_id' names the users themselves", users=users, user_columns="user_id")
    refused(DataError, "'user_id' names the users themselves", user_columns="user_id")
    refused(DataError, "no column 'regions'", user_columns="regions")
    refused(DataError, "column 'none' has no value at a training event", users=users, user_columns="none")
    twice = pl.concat([users, users.head(1)])
    refused(DataError, "user 5 has 2 lines; keep one", users=twice, user_columns="age")
    others = users.with_columns(pl.col("user_id") + 100)
    refused(DataError, "knows none of the 3 users; its ids are like 105", users=others, user_columns="age")
    refused(
        DataError,
        "no user column among who, age",
        users=users.rename({"user_id": "who"}).drop("none"),
        user_columns="age",
    )
    refused(ArgumentError, "user_columns= is kept by one dataset alone", user_columns="region", shards=2)
    refused(DataError, "check the path of the users file", users=tmp_path / "no.csv", user_columns="age")
    many = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(90), 3),
            "item_id": np.arange(270) % 7,
            "timestamp": np.arange(270) + START_S,
        }
    ).with_columns(mail=pl.format("u{}@example.org", "user_id"))
    with pytest.raises(DataError, match="90 distinct values for 90 users: it names users"):
        prepare(many, tmp_path / "many", user_columns="mail")
