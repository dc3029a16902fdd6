"""Which shard a user lies in: a hash of the id that is the same on every machine, whatever wrote it.

It is written out here and takes no library's hash, whose values may change from one version to the next.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

__all__ = ["USER_HASH", "hash_ids", "shards_of"]

USER_HASH = "splitmix64"
"""Name of the hash in a manifest; another hash would have another name."""

_GAMMA, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_WORD = 8
_AT_ONCE = 65_536


def shards_of(ids: "pl.Series", n_shards: int) -> NDArray[np.int32]:
    """(n,) int32 shard of each user, 0..n_shards-1.

    Args:
        ids: (n,) int64 or text ids without nulls.
        n_shards: of the store.
    """
    found: NDArray[np.int32] = (hash_ids(ids) % np.uint64(n_shards)).astype(np.int32)
    return found


def hash_ids(ids: "pl.Series") -> NDArray[np.uint64]:
    """(n,) uint64 hash of each id.

    A number is mixed by splitmix64 (Steele, Lea and Flood, 2014: Fast splittable pseudorandom number
    generators). A text id is its UTF-8 bytes in words of eight, little-endian and filled up with zeros: each
    is added to the state and mixed in, after the number of bytes.
    """
    if ids.dtype.is_integer():
        return _mix(ids.to_numpy().astype(np.int64).view(np.uint64))
    pieces = [_hash_text(ids.slice(at, _AT_ONCE)) for at in range(0, ids.len(), _AT_ONCE)]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *pieces])


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def _hash_text(ids: "pl.Series") -> NDArray[np.uint64]:
    encoded = [value.encode() for value in ids.to_list()]
    lengths = np.array([len(value) for value in encoded], dtype=np.int64)
    words = -(-lengths // _WORD)
    filled = b"".join(value.ljust(-(-len(value) // _WORD) * _WORD, b"\0") for value in encoded)
    data = np.frombuffer(filled, dtype="<u8").astype(np.uint64)
    first = np.cumsum(words) - words
    state = _mix(lengths.astype(np.uint64))
    live, word = np.arange(len(encoded)), 0
    while len(live := live[words[live] > word]):
        state[live] = _mix(state[live] + data[first[live] + word])
        word += 1
    return state
