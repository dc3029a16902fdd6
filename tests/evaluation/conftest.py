from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass
class SmallStore:
    """A prepared log in memory: what `SequenceStore` shows of itself, from plain lists."""

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    valid_start: NDArray[np.int64]
    test_start: NDArray[np.int64]
    n_items: int
    meta: dict[str, Any] = field(default_factory=dict)
    name: str = "toy"

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    def item_counts(self) -> NDArray[np.int64]:
        spans = zip(self.offsets[:-1], self.valid_start, strict=True)
        training = np.concatenate([self.items[first:end] for first, end in spans])
        return np.bincount(training, minlength=self.n_items).astype(np.int64)


StoreMaker = Callable[..., SmallStore]


@pytest.fixture
def make_store() -> StoreMaker:
    """Users as (training, validation, test) lists of items."""

    def make(
        users: Sequence[tuple[list[int], list[int], list[int]]],
        n_items: int,
        meta: dict[str, Any] | None = None,
    ) -> SmallStore:
        lengths = np.array([[len(part) for part in user] for user in users], dtype=np.int64).reshape(-1, 3)
        offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]).astype(np.int64)
        valid_start = offsets[:-1] + lengths[:, 0]
        events = [item for user in users for part in user for item in part]
        return SmallStore(
            np.array(events, dtype=np.int32),
            offsets,
            valid_start,
            valid_start + lengths[:, 1],
            n_items,
            meta or {},
        )

    return make


@pytest.fixture
def random_store(make_store: StoreMaker) -> StoreMaker:
    """A random log; `segment` is the greatest length of the validation and test parts."""

    def make(
        seed: int, *, n_users: int = 60, n_items: int = 40, segment: int = 1, **options: Any
    ) -> SmallStore:
        rng = np.random.default_rng(seed)

        def part(low: int, high: int) -> list[int]:
            # Squared draws make some items popular.
            return [int(x * x * n_items) for x in rng.random(rng.integers(low, high + 1))]

        users = [(part(0, 12), part(0, segment), part(0, segment)) for _ in range(n_users)]
        return make_store(users, n_items, **options)

    return make
