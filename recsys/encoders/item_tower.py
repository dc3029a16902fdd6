"""Items by more than their ids: the sum of an id row, rows of tags, and a projection of given vectors.

    e_v = rho_v E[v] + sum over tags t of v of w_vt B[t] + P x_v

E, B and P learn; x is what somebody else's model made of the item and stays. rho is 0 for an item without a
training event, whose row would be noise, and in training for a share of the items drawn anew at each step: B
and P alone then have to say what the item is, as they will for one that nobody has clicked yet (DropoutNet,
Volkovs et al. 2017). The sum is input embedding and output head at once, like a table of ids alone.

Vectors depend on weights, so they are held in a `with` block of training alone, or kept in evaluation for as
long as no weight changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.encoders.item_projection import Projection
from recsys.encoders.items import (
    DEVIATION,
    HashedItemEmbedding,
    ItemEmbedding,
    NumberedItems,
    places_among,
)
from recsys.encoders.later_items import LaterItems
from recsys.kernels.bags import Transposed, bag_vectors, transpose
from recsys.kernels.embedding import Items, item_vectors
from recsys.kernels.shared.random_words import LARGEST, row_keys, scaled

__all__ = ["ItemInputs", "ItemTower", "Parts"]

Parts = Literal["id", "id+features", "features"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemInputs:
    """What a tower reads of V items.

    Attributes:
        trained: (V,) bool, items with a training event.
        tags: (T,) int32 tags of all items, 0..n_tags-1.
        tag_offsets: (V + 1,) int64: item v bears the tags from entry v to entry v + 1.
        tag_weights: (T,) float32.
        n_tags: C; 0 for none.
        vectors: (V, p) float16, or None.
        digest: hex sha256 of all of it.
    """

    trained: NDArray[np.bool_]
    tags: NDArray[np.int32]
    tag_offsets: NDArray[np.int64]
    tag_weights: NDArray[np.float32]
    n_tags: int
    vectors: NDArray[np.float16] | None
    digest: str


class ItemTower(NumberedItems):
    """Vectors of V items, of the extra ones behind them, which have their id rows alone, and of later ones.

    Later items came after training: they stand behind the extra ones and have their features alone, as items
    of the catalog without a training event have.

    Args:
        ids: the table of ids, initialized; its weight becomes the tower's.
        n_items: V.
        parts: "id+features", or "features", which keeps of the table the extra items' rows.
        kind: "linear" or "mlp", of the projection.
        id_dropout: share of the items whose id row a training step leaves out.
        inputs: what is known of the items.
        generator: of the new weights.

    Attributes:
        sparse: as of `ItemEmbedding`.
        digest: of the inputs.
        with_ids: whether items have id rows.
    """

    trained: Tensor
    tags: Tensor
    tag_offsets: Tensor
    tag_weights: Tensor

    def __init__(
        self,
        ids: ItemEmbedding | HashedItemEmbedding,
        n_items: int,
        *,
        parts: Parts,
        kind: Literal["linear", "mlp"],
        id_dropout: float,
        inputs: ItemInputs,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_items, self.sparse, self.digest = n_items, False, inputs.digest
        self.n_hashes = ids.n_hashes if isinstance(ids, HashedItemEmbedding) else 0
        self.with_ids, self._id_dropout = parts == "id+features", id_dropout
        self._all_trained = bool(inputs.trained.all())
        weight = cast("nn.Parameter", ids.weight)
        if isinstance(ids, HashedItemEmbedding):
            self.n_extra = ids.n_extra
        else:
            self.n_extra = len(weight) - n_items
        if not self.with_ids:
            weight = nn.Parameter(weight.detach()[len(weight) - self.n_extra :].clone())
        elif not self.n_hashes:
            with torch.no_grad():
                weight[:n_items][~torch.from_numpy(inputs.trained)] = 0
        self.weight = weight
        width = weight.shape[1]
        self.register_buffer("trained", torch.from_numpy(inputs.trained.copy()), persistent=False)
        self.tag_weight: nn.Parameter | None = None
        if inputs.n_tags:
            drawn = torch.empty(inputs.n_tags, width).normal_(0.0, DEVIATION, generator=generator)
            self.tag_weight = nn.Parameter(drawn)
        for name in ("tags", "tag_offsets", "tag_weights"):
            array = np.array(getattr(inputs, name))
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self.projection: Projection | None = None
        if inputs.vectors is not None:
            self.projection = Projection(inputs.vectors, inputs.trained, width, kind, generator)
        self._held: tuple[Tensor, Tensor | None] | None = None
        self._seed: int | None = None
        self._kept: tuple[tuple[Any, ...], LaterItems | None, Tensor] | None = None
        self._transposed: Transposed | None = None
        self._later: LaterItems | None = None

    def set_later(self, later: LaterItems | None) -> None:
        """Let items be read that came after training, instead of those before.

        Raises:
            ArgumentError: a tag or a vector is not of the catalog's kind.
        """
        if later is not None:
            later.check(
                n_tags=0 if self.tag_weight is None else len(self.tag_weight),
                width=0 if self.projection is None else self.projection.vectors.shape[1],
            )
        self._later = later

    @property
    def n_later(self) -> int:
        """Items that came after training."""
        return 0 if self._later is None else len(self._later)

    def later_vectors(self) -> Tensor:
        """(m, D) vectors of the later items, without gradients."""
        with torch.no_grad():
            table = self._table() if self._steady() else self._with_later(self._made(None), self._later)
        return table[self.n_items + self.n_extra :]

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of items, (..., D)."""
        flat = ids.reshape(-1)
        if self._held is not None:
            found = item_vectors(self._held[0], self.places(flat))
        elif self._steady():
            found = self._table().index_select(0, flat)
        else:
            distinct, places = flat.unique(return_inverse=True)
            found = item_vectors(self._made(distinct), places)
        return found.view(*ids.shape, self.weight.shape[1])

    @property
    def items(self) -> Items:
        """What sampled losses look vectors up in, by `places`."""
        return self.vectors(self.n_items) if self._held is None else self._held[0]

    def places(self, ids: Tensor) -> Tensor:
        """Where vectors of items stand in `items`.

        Raises:
            ArgumentError: one is not among those that are held; on a GPU torch says so instead.
        """
        if self._held is None or self._held[1] is None:
            return ids
        return places_among(self._held[1], ids)

    def vectors(self, n_items: int) -> Tensor:
        """(V, D) vectors of the catalog; differentiable in training."""
        if self._held is not None and self._held[1] is None:
            return self._held[0][:n_items]
        return (self._table() if self._steady() else self._made(None))[:n_items]

    @contextmanager
    def held(self, ids: Tensor | None, seed: int | None) -> Iterator[None]:
        """Make vectors once for all that is looked up inside a `with` block, whose gradient flows back once.

        Args:
            ids: (n,) int64 items that may be looked up, ascending and distinct; None for all.
            seed: by which id rows are left out; None leaves out none.
        """
        self._seed = seed if self.training else None
        try:
            self._held = (self._made(ids), ids)
            yield
        finally:
            self._held = self._seed = None

    def train(self, mode: bool = True) -> "ItemTower":
        """Into training or evaluation; weights may have changed since vectors were kept."""
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **options: Any) -> "ItemTower":
        self._kept = self._transposed = None
        return super()._apply(*args, **options)  # type: ignore[no-untyped-call,no-any-return]

    def _steady(self) -> bool:
        return not self.training and not torch.is_grad_enabled()

    def _table(self) -> Tensor:
        """All vectors, kept while no weight changes."""
        later = self._later
        key = tuple((id(p), p._version) for p in self.parameters())
        kept = self._kept
        if kept is None or kept[0] != key or kept[1] is not later:
            with torch.inference_mode(False), torch.no_grad():
                own = self._made(None) if kept is None or kept[0] != key else kept[2]
                table = self._with_later(own[: self.n_items + self.n_extra], later)
            kept = self._kept = (key, later, table)
        return kept[2]

    def _with_later(self, table: Tensor, later: LaterItems | None) -> Tensor:
        return table if later is None else torch.cat((table, self._later_rows(later)))

    def _later_rows(self, later: LaterItems) -> Tensor:
        """(m, D), the bits that items of the catalog with these features and without an id row have."""
        device = self.weight.device
        made = torch.zeros(len(later), self.weight.shape[1], dtype=self.weight.dtype, device=device)
        if self.tag_weight is not None:
            offsets, tags, weights = (
                torch.from_numpy(array).to(device)
                for array in (later.tag_offsets, later.tags, later.tag_weights)
            )
            made = made + bag_vectors(self.tag_weight, offsets, tags, weights)
        if self.projection is not None and later.vectors is not None:
            projected = self.projection.of_later(torch.from_numpy(later.vectors).to(device))
            made = made + projected.to(made.dtype)
        return made

    def _made(self, ids: Tensor | None) -> Tensor:
        """Vectors (n, D) of items, ascending and distinct; of all, the extra ones behind them, for None."""
        if ids is None:
            known, extra = None, torch.arange(self.n_extra, device=self.weight.device)
        else:
            count = int(torch.searchsorted(ids, torch.tensor(self.n_items, device=ids.device)))
            known, extra = ids[:count], ids[count:] - self.n_items
            if self._later is not None and len(extra):
                own, later = extra[extra < self.n_extra], extra[extra >= self.n_extra] - self.n_extra
                found = self._made(torch.cat((known, own + self.n_items)))
                return torch.cat((found, self._later_rows(self._later).index_select(0, later)))
        made = self._features(known)
        if self.with_ids:
            rows = self._id_rows(known)
            made = rows if made is None else rows + made
        assert made is not None
        if not len(extra):
            return made
        first = len(self.weight) - self.n_extra
        return torch.cat((made, item_vectors(self.weight, extra + first, sparse=self.sparse)))

    def _id_rows(self, ids: Tensor | None) -> Tensor:
        """Id rows, zero where they do not count."""
        table: Items = self.hashed_table() if self.n_hashes else self.weight
        if ids is None and not self.n_hashes:
            rows = self.weight[: self.n_items]
        else:
            asked = torch.arange(self.n_items, device=self.weight.device) if ids is None else ids
            rows = item_vectors(table, self.numbered(asked), sparse=self.sparse)
        counts = None if self._all_trained else self.trained if ids is None else self.trained[ids]
        if self._seed is not None and self._id_dropout:
            items = torch.arange(self.n_items, device=rows.device) if ids is None else ids
            stay = scaled(row_keys(self._seed, items), LARGEST)[0] >= int(self._id_dropout * LARGEST)
            counts = stay if counts is None else counts & stay
        return rows if counts is None else rows * counts[:, None].to(rows.dtype)

    def _features(self, ids: Tensor | None) -> Tensor | None:
        """The sum of tags and projected vectors; None for a tower without either."""
        made = None
        if self.tag_weight is not None:
            made = self._tags(self.tag_weight, ids)
        if self.projection is not None:
            projected = self.projection(ids).to(self.weight.dtype)
            made = projected if made is None else made + projected
        return made

    def _tags(self, table: Tensor, ids: Tensor | None) -> Tensor:
        weights = self.tag_weights.float()
        if ids is None:
            if self._transposed is None:
                self._transposed = transpose(self.tag_offsets, self.tags, weights, len(table))
            return bag_vectors(table, self.tag_offsets, self.tags, weights, transposed=self._transposed)
        starts = self.tag_offsets[ids]
        lengths = self.tag_offsets[ids + 1] - starts
        offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        entries = (starts - offsets[:-1]).repeat_interleave(lengths)
        entries = entries + torch.arange(len(entries), device=entries.device)
        return bag_vectors(table, offsets, self.tags[entries], weights[entries])
