"""Vectors that are kept: the bound holds, the least recently used go, and nobody can change them."""

import numpy as np
import pytest

from recsys.serving.engine.vector_cache import VectorCache

ROW = 4 * 4 + 400


def _vectors(value: float, rows: int = 1) -> np.ndarray:
    return np.full((rows, 4), value, dtype=np.float32)


def test_the_least_recently_used_go_first() -> None:
    cache = VectorCache(3 * ROW)
    for key in "abc":
        cache.put(key, _vectors(ord(key)))
    assert cache.get("a") is not None
    cache.put("d", _vectors(4))
    assert [key for key in "abcd" if cache.get(key) is None] == ["b"]
    assert (len(cache), cache.bytes, cache.evictions) == (3, 3 * ROW, 1)


def test_the_bound_is_of_bytes_not_of_entries() -> None:
    cache = VectorCache(3 * ROW)
    cache.put("one", _vectors(1))
    cache.put("many", _vectors(2, rows=40))
    assert cache.get("one") is None
    assert cache.bytes == 40 * 16 + 400
    cache.put("too many", _vectors(3, rows=400))
    assert cache.get("too many") is None
    assert cache.get("many") is not None


def test_a_key_that_is_put_again_is_counted_once() -> None:
    cache = VectorCache(3 * ROW)
    cache.put("a", _vectors(1))
    cache.put("a", _vectors(2, rows=2))
    found = cache.get("a")
    assert found is not None
    assert found.tolist() == _vectors(2, rows=2).tolist()
    assert (len(cache), cache.bytes) == (1, 2 * 16 + 400)


def test_what_is_kept_is_a_copy_that_cannot_be_written() -> None:
    cache = VectorCache(3 * ROW)
    batch = _vectors(1, rows=64)
    cache.put("a", batch[3:4])
    batch[:] = 9
    found = cache.get("a")
    assert found is not None
    assert found.base is None
    assert found.tolist() == [[1.0] * 4]
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 2


def test_no_bytes_keep_nothing() -> None:
    cache = VectorCache(0)
    cache.put("a", _vectors(1))
    assert (len(cache), cache.bytes, cache.get("a")) == (0, 0, None)
