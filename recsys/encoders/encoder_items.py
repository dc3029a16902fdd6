"""The items of an encoder: their table, what they are made of, those that came after training."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.encoders.item_tower import ItemInputs, ItemTower
from recsys.encoders.items import (
    HashedItemEmbedding,
    ItemEmbedding,
    ShardedItemEmbedding,
    make_item_embedding,
)
from recsys.encoders.later_items import LaterItems
from recsys.errors import ArgumentError, ConfigError

ItemTable = ItemEmbedding | HashedItemEmbedding | ItemTower | ShardedItemEmbedding
"""What an encoder looks its items up in."""


class EncoderItems(nn.Module):
    """The part of an encoder that knows items.

    Attributes:
        config: of the encoder.
        n_items: V, the size of the catalog.
        n_extra_items: rows of the item table beyond the catalog (BERT4Rec's mask token).
        item_embedding: vectors that are taken in.
        output_embedding: vectors that score; None where they are the same.
    """

    n_extra_items: ClassVar[int] = 0

    def __init__(self, config: Any, n_items: int) -> None:
        super().__init__()
        self.config: Any = config
        self.n_items = n_items
        self.item_embedding: ItemTable = make_item_embedding(
            n_items, self.n_extra_items, config.d_model, config.item_hashes, config.item_buckets
        )
        self.output_embedding: ItemTable | None = None
        if not config.tie_items:
            self.output_embedding = make_item_embedding(
                n_items, 0, config.d_model, config.item_hashes, config.item_buckets
            )

    @property
    def scored_items(self) -> ItemTable:
        """The table whose vectors score: the input embedding, or the output's own if they are not tied."""
        return self.item_embedding if self.output_embedding is None else self.output_embedding

    @property
    def item_weight(self) -> Tensor:
        """(V, D) item vectors that states are multiplied with; of hashed items made anew at each call."""
        return self.scored_items.vectors(self.n_items)

    def item_vectors(self) -> Tensor:
        """(V, D) item vectors for ranking and search, without gradients."""
        with torch.no_grad():
            return self.item_weight.detach()

    def set_item_features(self, inputs: ItemInputs, generator: torch.Generator) -> None:
        """Make items more than their ids, as ``config.item_parts`` says; once, after the weights are drawn.

        Args:
            inputs: features of the V items.
            generator: of the weights that come with them.

        Raises:
            ConfigError: the features are of another number of items, or the settings ask for vectors and
                there are none.
        """
        if len(inputs.trained) != self.n_items:
            raise ConfigError(
                f"features are of {len(inputs.trained)} items and the encoder has {self.n_items}"
            )
        if self.config.item_projection == "mlp" and inputs.vectors is None:
            raise ConfigError(
                "encoder.item_projection = 'mlp' needs vectors of items and the data have none: prepare the "
                "log with item_vectors=, or leave it out"
            )

        def tower(table: ItemTable) -> ItemTower:
            assert isinstance(table, ItemEmbedding | HashedItemEmbedding)
            return ItemTower(
                table,
                self.n_items,
                parts=self.config.item_parts,
                kind=self.config.item_projection,
                id_dropout=self.config.item_id_dropout,
                inputs=inputs,
                generator=generator,
            )

        self.item_embedding = tower(self.item_embedding)
        if self.output_embedding is not None:
            self.output_embedding = tower(self.output_embedding)

    @property
    def item_features_digest(self) -> str | None:
        """Of the features that items are made of; None where they are their ids alone."""
        return self.item_embedding.digest if isinstance(self.item_embedding, ItemTower) else None

    def set_later_items(self, later: LaterItems | None) -> None:
        """Let histories hold items that came after training; they are read by their features.

        Args:
            later: features of m items, instead of those before; None for no such item.

        Raises:
            ArgumentError: items are their ids alone, or the features are not of the catalog's kind.
        """
        for table in {self.item_embedding, self.scored_items}:
            if isinstance(table, ItemTower):
                table.set_later(later)
            elif later is not None:
                raise ArgumentError("this encoder knows items by their ids alone: it cannot read later ones")

    @property
    def n_later_items(self) -> int:
        """Items that came after training and can be read."""
        return self.item_embedding.n_later if isinstance(self.item_embedding, ItemTower) else 0

    def later_item_vectors(self) -> Tensor:
        """(m, D) vectors of the later items for ranking and search, without gradients."""
        table = self.scored_items
        if not isinstance(table, ItemTower):
            return self.item_weight.new_zeros(0, self.config.d_model).detach()
        return table.later_vectors()

    def places_of(self, items: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Items as batches hold them: those numbered from V on came later, and stand behind the extra ones.

        Args:
            items: (N,) indices, V + i for the i-th later item.
        """
        if not self.n_extra_items or not len(items) or int(items.max()) < self.n_items:
            return items
        return np.where(items < self.n_items, items, items + self.n_extra_items)

    @contextmanager
    def items_held(
        self, seen: Tensor, scored: Tensor | None = None, *, seed: int | None = None
    ) -> Iterator[None]:
        """Make vectors of items with features once for all that a `with` block does with them.

        Of a table in rows over processes the rows are fetched. Items that are their ids alone need none of
        it. Weights must not change inside the block.

        Args:
            seen: (N,) int64 items that the encoder takes in.
            scored: (n,) int64 items that are scored; None for the whole catalog.
            seed: by which a training step leaves out id rows.
        """
        table = self.item_embedding
        if not isinstance(table, ItemTower | ShardedItemEmbedding):
            yield
            return
        with ExitStack() as held:
            if isinstance(table, ShardedItemEmbedding):
                every = seen if scored is None else torch.cat((seen, scored.reshape(-1)))
                held.enter_context(table.held(every.to(torch.int64).unique()))
            elif self.output_embedding is not None:
                assert isinstance(self.output_embedding, ItemTower)
                held.enter_context(table.held(seen.unique(), seed))
                chosen = None if scored is None else scored.unique()
                held.enter_context(self.output_embedding.held(chosen, seed))
            else:
                chosen = None if scored is None else torch.cat((seen, scored.reshape(-1))).unique()
                held.enter_context(table.held(chosen, seed))
            yield

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        return self.item_embedding.weight.device
