"""Ids as they stand in the log, to and from the indices of a prepared dataset."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.schema import ITEM, USER
from recsys.errors import DataError, UnknownIdError
from recsys.forks import polars_is_lost

if TYPE_CHECKING:
    import polars as pl

    from recsys.datasets.prepared.store import SequenceStore

# Up to this many text ids are looked up one by one; more are worth a hash table of the whole vocabulary.
_FEW = 256


class Vocabulary:
    """The ids of users or items, in the order of their indices.

    Args:
        ids: int64 or string series without nulls or repeats, in rising order.

    Raises:
        DataError: the ids repeat, are not in rising order, or are neither numbers nor text.
    """

    def __init__(self, ids: "pl.Series") -> None:
        import polars as pl

        if ids.dtype.is_integer():
            ids = ids.cast(pl.Int64)
        elif ids.dtype != pl.String:
            raise DataError(f"vocabulary {ids.name!r} has type {ids.dtype}; ids are int64 or text")
        if ids.null_count() or ids.len() != ids.n_unique() or not ids.is_sorted():
            raise DataError(f"vocabulary {ids.name!r}: ids repeat or are out of order; prepare the log again")
        self.ids = ids
        self._numbers: NDArray[np.int64] | None = ids.to_numpy() if ids.dtype == pl.Int64 else None
        self._places: dict[str, int] | None = None

    @classmethod
    def read(cls, path: str | Path, column: str) -> "Vocabulary":
        """Read one id column of a Parquet file.

        Raises:
            DataError: the file is missing or damaged, or lacks the column.
        """
        import polars as pl

        if not Path(path).is_file():
            raise DataError(f"{path}: the file is missing; prepare the log again")
        with reading(str(path)):
            return cls(pl.read_parquet(path, columns=[column], glob=False)[column])

    def __len__(self) -> int:
        return self.ids.len()

    @property
    def is_int(self) -> bool:
        """Whether ids are whole numbers."""
        return self._numbers is not None

    def encode(self, ids: "Iterable[Any] | pl.Series | NDArray[Any]") -> NDArray[np.int32]:
        """Indices of ids.

        A number finds the text id of the same spelling and the other way round (``"42"`` finds 42).

        Args:
            ids: (n,) ids.

        Returns:
            (n,) int32 indices, -1 for an id that is not in the vocabulary.
        """
        if self._numbers is not None:
            return self._encode_numbers(as_numbers(ids))
        return self._encode_text(as_text(ids))

    def keep_table(self) -> None:
        """Hold a table of text ids from now on, some hundred bytes each, for a process that looks up many."""
        if self._numbers is None and self._places is None:
            self._places = {name: place for place, name in enumerate(self.ids.to_list())}

    def require(self, ids: "Iterable[Any]", what: str = "id") -> NDArray[np.int32]:
        """Indices of ids that must all be known.

        Raises:
            UnknownIdError: one is not in the vocabulary; the message names it and counts the others.
        """
        asked = list(ids)
        found = self.encode(asked)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnknownIdError(f"{what} {asked[unknown[0]]!r}{more} is not in the log; check the id")
        return found

    def decode(self, indices: "NDArray[np.integer[Any]] | Iterable[int]") -> "pl.Series":
        """Ids of indices.

        Raises:
            UnknownIdError: an index is out of range.
        """
        import polars as pl

        places = np.asarray(
            indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64
        ).ravel()
        if len(places) and (places.min() < 0 or places.max() >= len(self)):
            raise UnknownIdError(f"an index is outside [0, {len(self)}): it names nothing in the log")
        if self._numbers is not None:
            return pl.Series(self.ids.name, self._numbers[places])
        return self.ids[places]

    def digest(self) -> str:
        """Hex sha256 of the ids in order, one per line."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 65_536):
            lines = self.ids.slice(start, 65_536).to_list()
            digest.update("".join(f"{value}\n" for value in lines).encode())
        return digest.hexdigest()

    def _encode_numbers(self, asked: "tuple[NDArray[np.int64], NDArray[np.bool_]]") -> NDArray[np.int32]:
        assert self._numbers is not None
        numbers, readable = asked
        if not len(self._numbers):
            return np.full(len(numbers), -1, dtype=np.int32)
        places = np.searchsorted(self._numbers, numbers)
        places[places == len(self._numbers)] = 0
        known = readable & (self._numbers[places] == numbers)
        return np.where(known, places, -1).astype(np.int32)

    def _encode_text(self, asked: "pl.Series") -> NDArray[np.int32]:
        import polars as pl

        if self._places is not None:
            return np.array([self._places.get(value, -1) for value in asked.to_list()], dtype=np.int32)
        # A join needs polars' threads, which a forked process lacks.
        if asked.len() <= _FEW or polars_is_lost():
            return np.array([self._place(value) for value in asked.to_list()], dtype=np.int32)
        table = pl.DataFrame({"id": self.ids, "place": np.arange(len(self), dtype=np.int32)})
        joined = asked.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")
        return joined["place"].fill_null(-1).to_numpy()

    def _place(self, value: str | None) -> int:
        if value is None:
            return -1
        wanted, low, high = value.encode(), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.ids[middle].encode() < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.ids[low] == value else -1


def user_vocabulary(store: "SequenceStore") -> Vocabulary:
    """The users of a prepared dataset; of shards, one that reads the shards it is asked about."""
    from recsys.datasets.prepared.sharded_store import ShardedStore

    if isinstance(store, ShardedStore):
        from recsys.datasets.prepared.sharded_users import ShardedUsers

        return ShardedUsers(store)
    return _read_sized(store.path / "users.parquet", USER, store.n_users)


def item_vocabulary(store: "SequenceStore") -> Vocabulary:
    """The items of a prepared dataset."""
    return _read_sized(store.path / "items.parquet", ITEM, store.n_items)


def item_table(store: "SequenceStore") -> "pl.DataFrame":
    """All that is known of the items: ``item_id``, ``count`` and the metadata columns; row v is item v."""
    import polars as pl

    with reading(str(store.path / "items.parquet")):
        return pl.read_parquet(store.path / "items.parquet", glob=False)


def _read_sized(path: Path, column: str, expected: int) -> Vocabulary:
    vocabulary = Vocabulary.read(path, column)
    if len(vocabulary) != expected:
        raise DataError(
            f"{path}: holds {len(vocabulary)} ids, {expected} belong there; prepare the log again"
        )
    return vocabulary


def as_text(ids: Any) -> "pl.Series":
    """Ids as text, null for none."""
    import polars as pl

    if isinstance(ids, pl.Series):
        return ids.cast(pl.String)
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    return pl.Series([None if value is None else str(value) for value in ids], dtype=pl.String)


def as_numbers(ids: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whole numbers, and which of the ids were one."""
    import polars as pl

    if isinstance(ids, pl.Series):
        ids = ids.to_numpy() if ids.dtype.is_integer() and not ids.null_count() else ids.to_list()
    if isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.integer):
        return ids.astype(np.int64), np.ones(len(ids), dtype=bool)
    numbers = [_as_number(value) for value in ids]
    readable = np.array([number is not None for number in numbers], dtype=bool)
    return np.array([number or 0 for number in numbers], dtype=np.int64), readable


def _as_number(value: Any) -> int | None:
    try:
        number = int(value) if not isinstance(value, str) else int(value.strip())
    except (TypeError, ValueError, OverflowError):
        return None
    # A fraction, or a number that int64 does not hold, is nobody's id.
    return number if -(2**63) <= number < 2**63 and (isinstance(value, str) or number == value) else None
