"""Users of a store of shards: where each lies, and that no more is opened than is asked for."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.user_hash import hash_ids, shards_of
from recsys.datasets.prepared.vocabulary import user_vocabulary
from recsys.errors import ArgumentError
from tests.datasets.shard_logs import sharded_store, tied_log


def test_the_hash_is_splitmix64_and_never_changes() -> None:
    assert hash_ids(pl.Series([0])).tolist() == [0xE220A8397B1DCDAF]
    text = pl.Series(["", "a", "a\0", "usér-1", "12345678", "123456789"])
    # Worked out by the rule with Python's whole numbers.
    wanted = [
        0xE220A8397B1DCDAF,
        0x3D54F6EC231E0B0B,
        0xBB8641FFD05B5F27,
        0xC622BB70315003AE,
        0x8470E91B9C03883E,
        0xC3F1B3D58908CBEA,
    ]
    assert hash_ids(text).tolist() == wanted
    long = pl.Series([f"user-{number}" for number in range(70_000)])
    np.testing.assert_array_equal(hash_ids(long)[-3:], hash_ids(long.tail(3)))
    assert np.bincount(shards_of(long, 7)).min() > 9_500


def test_users_are_found_in_their_shards(tmp_path: Path) -> None:
    for text in (False, True):
        store = sharded_store(tied_log(text=text), tmp_path / f"out{text}")
        users = user_vocabulary(store)
        ids = users.ids.to_list()
        order = np.random.default_rng(0).permutation(len(ids))
        np.testing.assert_array_equal(users.encode([ids[place] for place in order]), order)
        assert users.decode(order).to_list() == [ids[place] for place in order]
        assert users.encode([ids[3], "nobody", None]).tolist() == [3, -1, -1]
        assert len(users) == len(ids)
        assert users.is_int != text
        users.keep_table()
        assert users.encode(ids[:2]).tolist() == [0, 1]
        assert users.decode([]).to_list() == []


def test_sequences_and_chosen_users(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out", time_zone="column:zone")
    chosen = np.arange(0, store.n_users, 3)
    some = store.of_users(chosen)
    assert "items" not in store.__dict__  # nothing was put together
    for place, user in enumerate(chosen.tolist()):
        for split in ("valid", "test", "all"):
            np.testing.assert_array_equal(some.history(place, split), store.history(user, split))
        np.testing.assert_array_equal(some.train_sequence(place), store.train_sequence(user))
    np.testing.assert_array_equal(some.item_counts(), store.item_counts())
    for name in ("timestamps", "utc_offsets"):
        whole = getattr(store, name)
        rows = np.concatenate([np.arange(store.offsets[user], store.offsets[user + 1]) for user in chosen])
        np.testing.assert_array_equal(getattr(some, name), whole[rows])
    with pytest.raises(ArgumentError, match="out of range"):
        store.history(store.n_users)


def test_a_store_that_moves_or_is_called_otherwise_opens_its_shards(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    store.path = Path("a name for messages")
    assert store.shard(0).n_users == store.shards[0].users
    (tmp_path / "out").rename(tmp_path / "moved")
    store.path = tmp_path / "moved"
    assert store.shard(1).n_users == store.shards[1].users
    users = user_vocabulary(store)
    assert users.encode(users.ids).tolist() == list(range(store.n_users))
