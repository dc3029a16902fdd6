"""An encoder's items: one row of a table each, or hashed into a shared one.

The same object is the input embedding and, through `vectors`, the head that scores the catalog.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from recsys.errors import ArgumentError
from recsys.kernels.embedding import HashedTable, Items, item_vectors

DEVIATION = 0.02
"""Of item vectors at the start."""

BLOCK = 65_536
"""Hashed items whose vectors are made at once, and rows that are drawn at once; a multiple of 16."""


class ItemEmbedding(nn.Embedding):
    """A row per item, (V + extra, D).

    Attributes:
        sparse: whether the table's gradient holds the rows of the batch alone; set by the trainer, who knows
            whether the loss touches every item.
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of items, (..., D)."""
        found = item_vectors(self.weight, ids.reshape(-1), sparse=self.sparse)
        return found.view(*ids.shape, self.embedding_dim)

    @property
    def items(self) -> Items:
        """What sampled losses look vectors up in."""
        return self.weight

    def places(self, ids: Tensor) -> Tensor:
        """Where vectors of items stand in `items`: at their ids."""
        return ids

    def vectors(self, n_items: int) -> Tensor:
        """(V, D) vectors of the catalog; differentiable."""
        return self.weight if n_items == self.num_embeddings else self.weight[:n_items]

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the vectors from a normal distribution."""
        with torch.no_grad():
            self.weight.normal_(0.0, DEVIATION, generator=generator)


class ShardedItemEmbedding(nn.Module):
    """Every W-th row of an item table; rows of other processes are at hand inside a `with` block alone.

    Args:
        n_rows: V + extra, of the whole table.
        width: D.
        first: r, below W: the rows here are r, r + W, r + 2 W, ...
        every: W.

    Attributes:
        weight: (ceil((V + extra - r) / W), D).
        sparse: as in `ItemEmbedding`, of the gradient of the rows at hand.
        first, every: r and W.
        n_rows: V + extra.
        at_hand: (n, D) rows of the last block, which have its gradient; None before the first.
    """

    def __init__(self, n_rows: int, width: int, first: int, every: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(len(range(first, n_rows, every)), width))
        self.sparse = False
        self.first, self.every, self.n_rows = first, every, n_rows
        self.at_hand: Tensor | None = None
        self._fetch: Callable[[Tensor], Tensor] | None = None
        self._held: Tensor | None = None

    @classmethod
    def of(cls, table: ItemEmbedding, first: int, every: int) -> "ShardedItemEmbedding":
        """Rows of a whole table, copied."""
        part = cls(0, table.embedding_dim, first, every)
        part.n_rows = table.num_embeddings
        part.weight = nn.Parameter(table.weight.detach()[first::every].clone())
        return part

    def connect(self, fetch: Callable[[Tensor], Tensor]) -> None:
        """Be told what gives the rows (n, D) of items (n,), ascending and distinct, whoever has them."""
        self._fetch = fetch

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the numbers of the whole table, and keep those of the rows here."""
        width = self.weight.shape[1]
        # torch draws 16 numbers at once, and the last 16 of a tensor apart: blocks end where whole draws do.
        starts = range(0, max(self.n_rows - 16, 1), BLOCK)
        with torch.no_grad():
            for start, end in zip(starts, [*starts[1:], self.n_rows], strict=True):
                rows = torch.empty(end - start, width).normal_(0.0, DEVIATION, generator=generator)
                own = rows[(self.first - start) % self.every :: self.every]
                place = self.n_own(start)
                self.weight[place : place + len(own)] = own

    def n_own(self, n_items: int) -> int:
        """How many of the first `n_items` rows of the table are here; they are the first ones of `weight`."""
        return len(range(self.first, n_items, self.every))

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of items, (..., D)."""
        found = item_vectors(self.items, self.places(ids.reshape(-1)), sparse=self.sparse)
        return found.view(*ids.shape, self.weight.shape[1])

    @property
    def items(self) -> Tensor:
        """What sampled losses look vectors up in, by `places`.

        Raises:
            ArgumentError: outside a block.
        """
        if self._held is None or self.at_hand is None:
            raise ArgumentError(self._told())
        return self.at_hand

    def places(self, ids: Tensor) -> Tensor:
        """Where vectors of items stand in `items`.

        Raises:
            ArgumentError: one is not at hand; on a GPU torch says so instead.
        """
        if self._held is None:
            raise ArgumentError(self._told())
        return places_among(self._held, ids)

    def vectors(self, n_items: int) -> Tensor:
        """No process has the vectors of the whole catalog.

        Raises:
            ArgumentError: always.
        """
        raise ArgumentError(self._told())

    @contextmanager
    def held(self, ids: Tensor) -> Iterator[None]:
        """Have rows at hand; all processes enter such a block together.

        Args:
            ids: (n,) int64 items, ascending and distinct. Where a step learns, all have to be looked up.

        Raises:
            ArgumentError: the training of which this was a part is over.
        """
        if self._fetch is None:
            raise ArgumentError(self._told())
        rows = self._fetch(ids)
        self.at_hand = rows.requires_grad_() if torch.is_grad_enabled() else rows
        self._held = ids
        try:
            yield
        finally:
            self._held = None

    def close(self) -> None:
        """Ask nobody for rows any more."""
        self._fetch = self.at_hand = None

    def _told(self) -> str:
        return (
            f"this process has rows {self.first}, {self.first + self.every}, ... of the item table alone "
            "(training.shard_items): use the model of process 0, or load the run's folder"
        )


def places_among(held: Tensor, ids: Tensor) -> Tensor:
    """Where items stand among (n,) ascending and distinct ones.

    Raises:
        ArgumentError: one is not among them; on a GPU torch says so instead.
    """
    found = torch.searchsorted(held, ids)
    there = torch.isin(ids, held) if not len(held) else held[found.clamp(max=len(held) - 1)] == ids
    if ids.device.type == "cuda":  # asking would wait for the GPU at every step
        torch._assert_async(there.all())
    elif not bool(there.all()):
        raise ArgumentError(
            f"item {int(ids[~there][0])} is not among the {len(held)} whose vectors are held: name it to "
            "items_held()"
        )
    return found


class NumberedItems(nn.Module):
    """Items that are hashed by numbers of their own, which outlast their places in a catalog.

    Only a catalog that grew has such numbers; elsewhere an item is hashed by its place.

    Attributes:
        weight: the table of rows.
        n_items, n_extra: V, and how many items are beyond the catalog.
        n_hashes: hash functions; 0 where items are not hashed.
        numbers: (V + extra,) int32 distinct numbers, the extra items' last and greatest, or None.
    """

    weight: nn.Parameter
    n_items: int
    n_extra: int
    n_hashes: int
    numbers: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("numbers", None)
        self._numbers_end = 0

    def hashed_table(self) -> HashedTable:
        """The table in which `numbered` items are found."""
        n_items = self.n_items if self.numbers is None else self._numbers_end
        return HashedTable(self.weight, n_items, self.n_hashes, self.n_extra)

    def numbered(self, ids: Tensor) -> Tensor:
        """What items are hashed by, int64."""
        return ids if self.numbers is None else self.numbers[ids].to(torch.int64)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        numbers = state_dict.get(f"{prefix}numbers")
        if numbers is not None:
            self.numbers = torch.empty_like(numbers, device=self.weight.device)
            self._numbers_end = int(numbers.max()) + 1 - self.n_extra
        super()._load_from_state_dict(state_dict, prefix, *rest)


class HashedItemEmbedding(NumberedItems):
    """Every item the sum of `n_hashes` rows of one table of `buckets` rows; an extra item has its own row.

    Attributes:
        sparse: as in `ItemEmbedding`.
    """

    def __init__(self, n_items: int, n_extra: int, width: int, n_hashes: int, buckets: int) -> None:
        super().__init__()
        self.n_items, self.n_extra, self.n_hashes = n_items, n_extra, n_hashes
        self.sparse = False
        self.weight = nn.Parameter(torch.empty(buckets + n_extra, width))
        self.initialize(torch.Generator().manual_seed(0))

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of items, (..., D)."""
        found = item_vectors(self.items, self.places(ids.reshape(-1)), sparse=self.sparse)
        return found.view(*ids.shape, self.weight.shape[1])

    @property
    def items(self) -> Items:
        """What sampled losses look vectors up in, by `places`."""
        return self.hashed_table()

    def places(self, ids: Tensor) -> Tensor:
        """Where vectors of items stand in `items`."""
        return self.numbered(ids)

    def vectors(self, n_items: int) -> Tensor:
        """(V, D) vectors of the catalog, made anew at each call; differentiable."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return self(torch.arange(n_items, device=self.weight.device))  # type: ignore[no-any-return]
        out = self.weight.new_empty(n_items, self.weight.shape[1])
        for first in range(0, n_items, BLOCK):
            last = min(first + BLOCK, n_items)
            out[first:last] = self(torch.arange(first, last, device=self.weight.device))
        return out

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the rows so that an item, their sum, starts as wide as with a row of its own."""
        with torch.no_grad():
            self.weight.normal_(0.0, DEVIATION * self.n_hashes**-0.5, generator=generator)


_ROWS: ContextVar[tuple[int, int] | None] = ContextVar("_ROWS", default=None)


@contextmanager
def making_rows(first: int, every: int) -> Iterator[None]:
    """Let encoders made inside the block have the rows first, first + every, ... of a table alone."""
    before = _ROWS.set((first, every))
    try:
        yield
    finally:
        _ROWS.reset(before)


def make_item_embedding(
    n_items: int, n_extra: int, width: int, n_hashes: int, buckets: int
) -> ItemEmbedding | ShardedItemEmbedding | HashedItemEmbedding:
    """A full table where n_hashes is 0, or the rows of `making_rows`; else a hashed one of `buckets` rows."""
    rows = _ROWS.get()
    if n_hashes == 0 and rows is not None:
        return ShardedItemEmbedding(n_items + n_extra, width, *rows)
    if n_hashes == 0:
        return ItemEmbedding(n_items + n_extra, width)
    return HashedItemEmbedding(n_items, n_extra, width, n_hashes, buckets)
