"""The users of a store of shards: an id is looked up in its own shard alone."""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.user_hash import shards_of
from recsys.datasets.prepared.vocabulary import Vocabulary, as_numbers, as_text, user_vocabulary
from recsys.errors import UnknownIdError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ShardedUsers"]


class ShardedUsers(Vocabulary):
    """Ids of all users in the order of their indices, which is that of the shards and not of the ids.

    Args:
        store: whose shards are opened when an id is looked for in them.
    """

    def __init__(self, store: ShardedStore) -> None:
        self._store = store
        self._own: dict[int, Vocabulary] = {}
        self._table = False

    def __len__(self) -> int:
        return self._store.n_users

    @property
    def is_int(self) -> bool:
        """Whether ids are whole numbers."""
        return self._of(0).is_int

    @cached_property
    def ids(self) -> "pl.Series":  # type: ignore[override]
        """All ids, put together from all shards."""
        import polars as pl

        return pl.concat([self._of(number).ids for number in range(self._store.n_shards)])

    def encode(self, ids: "Iterable[Any] | pl.Series | NDArray[Any]") -> NDArray[np.int32]:
        """As of a `Vocabulary`."""
        import polars as pl

        if self.is_int:
            numbers, known = as_numbers(ids)
            asked = pl.Series(numbers, dtype=pl.Int64)
        else:
            asked = as_text(ids)
            known = asked.is_not_null().to_numpy()
            asked = asked.fill_null("")
        found = np.full(asked.len(), -1, dtype=np.int32)
        shards = shards_of(asked, self._store.n_shards)
        for number in np.unique(shards[known]).tolist():
            rows = np.flatnonzero(known & (shards == number))
            own = self._of(number).encode(asked.gather(rows))
            found[rows] = np.where(own < 0, -1, own + int(self._store.starts[number]))
        return found

    def keep_table(self) -> None:
        """Hold tables of text ids from now on, for a process that looks up many."""
        self._table = True
        for own in self._own.values():
            own.keep_table()

    def decode(self, indices: "NDArray[np.integer[Any]] | Iterable[int]") -> "pl.Series":
        """As of a `Vocabulary`."""
        import polars as pl

        places = np.asarray(
            indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64
        ).ravel()
        if len(places) and (places.min() < 0 or places.max() >= len(self)):
            raise UnknownIdError(f"an index is outside [0, {len(self)}): it names nothing in the log")
        shards = np.searchsorted(self._store.starts, places, side="right") - 1
        order = np.argsort(shards, kind="stable")
        pieces = [self._of(0).ids.head(0)]
        for number in np.unique(shards).tolist():
            rows = order[shards[order] == number]
            pieces.append(self._of(number).ids.gather(places[rows] - self._store.starts[number]))
        back = np.empty(len(places), dtype=np.int64)
        back[order] = np.arange(len(places))
        return pl.concat(pieces).gather(back)

    def _of(self, number: int) -> Vocabulary:
        if number not in self._own:
            own = user_vocabulary(self._store.shard(number))
            if self._table:
                own.keep_table()
            self._own[number] = own
        return self._own[number]
