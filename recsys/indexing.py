"""What a fitted model does with its item index: build, save, neighbours of items, scoring of everybody."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.answers import Names, Wanted, similar
from recsys.datasets.store import SequenceStore
from recsys.decoder_building import build_decoder, golden_states
from recsys.decoding import Aggregate, Decoder, Vectors
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, RecsysError
from recsys.fresh_items import new_vectors
from recsys.offline_scoring import ScoringReport, score_parts
from recsys.retrieval.item_index import ItemIndex
from recsys.run_folder import fingerprint
from recsys.training.config import TrainingConfig

if TYPE_CHECKING:
    import polars


class NotFittedError(RecsysError):
    """The recommender has not been fitted or loaded."""


class Indexed:
    """The part of :class:`~recsys.recommender.Recommender` that concerns the index.

    Attributes:
        index: kind of index to build.
        encoder_: the trained encoder.
        store_: the prepared data it was trained on.
        training_: how it was trained.
    """

    index: str
    encoder_: SequenceEncoder
    store_: SequenceStore
    training_: TrainingConfig
    _names: Names
    _decoder: Decoder | None

    def similar_items(self, items: Iterable[Any], k: int = 10) -> "polars.DataFrame":
        """Nearest items by cosine of item vectors.

        Args:
            items: raw item ids.
            k: neighbours per item; the item itself is left out.

        Returns:
            Frame item_id, similar_item_id, score (cosine), rank, with title where there are titles.

        Raises:
            UnknownIdError: an item is not in the catalog.
        """
        encoder = self._fitted()
        return similar(encoder.item_vectors().float().cpu(), self._names, items, k)

    def add_items(
        self,
        ids: Iterable[Any],
        *,
        vectors: Any = None,
        like: Iterable[Iterable[Any]] | None = None,
        category: Iterable[str] | None = None,
    ) -> None:
        """Let items be answered that the log does not know, at once and without a rebuild in the way.

        They live with this object: a saved index holds the log's items alone.

        Args:
            ids: raw ids; an item that is there gets the new vector.
            vectors: (n, d) theirs, in the space of the index's vectors.
            like: or for each the raw ids of known items that it is like: it gets their mean.
            category: or for each a category of the catalog: it gets the mean of its items.

        Raises:
            ArgumentError: not exactly one of the three, or one of them does not fit.
            UnknownIdError: a known item or category is not in the catalog.
        """
        if [vectors is None, like is None, category is None].count(False) != 1:
            raise ArgumentError("pass vectors, like or category: one of them, for all items that are added")
        new = list(ids)
        live = self.decoder_.changing()
        rows: list[Any] | None = None
        if like is not None:
            rows = [self._names.answerable_rows(known, "like") for known in like]
        elif category is not None:
            here = live.snapshot().ids
            rows = [np.intersect1d(self._names.of_category(name), here) for name in category]
        given = new_vectors(live, len(new), vectors=vectors, like=rows)
        if given.shape != (len(new), self.index_.width):
            raise ArgumentError(f"vectors has shape {given.shape}: give ({len(new)}, {self.index_.width})")
        live.update(add=(self._names.answerable.add(new), given))

    def remove_items(self, ids: Iterable[Any]) -> None:
        """Let items no longer be answered, at once. Histories may still hold them.

        Args:
            ids: raw ids.

        Raises:
            UnknownIdError: an id is in neither the log nor the items added.
            ArgumentError: nothing would be left.
        """
        self.decoder_.changing().update(remove=self._names.answerable_rows(ids, "remove"))

    def score(
        self,
        out: str | Path,
        users: Iterable[Any] | None = None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        part_users: int = 100_000,
        overwrite: bool = False,
        progress: bool = False,
    ) -> ScoringReport:
        """Recommend for many users into Parquet parts; a call that was cut short goes on where it stopped.

        Args:
            out: folder of the parts.
            users: raw ids; None for all users of the log.
            k: answers per user.
            exclude_seen: leave out items of the history.
            allow: only these items may be answered.
            deny: these items may not.
            part_users: users per part; bounds the memory.
            overwrite: begin anew where the folder holds parts of another call.
            progress: whether a bar may be drawn.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        wanted = Wanted(k=k, exclude_seen=exclude_seen, allow=allow, deny=deny)
        return score_parts(
            self._fitted(),
            self.decoder_,
            self._names,
            Path(out),
            users=users,
            wanted=wanted,
            part_users=part_users,
            overwrite=overwrite,
            progress=progress,
        )

    def build_index(
        self,
        kind: str | None = None,
        *,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        options: Mapping[str, object] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> ItemIndex:
        """Build the item index anew.

        Args:
            kind: of index; None takes the constructor's.
            vectors: ``"embedding"``: the tied table. ``"latent"``: the mean state of the training histories
                that an item followed. ``"mixed"``: both, by a weight chosen on the validation events.
            aggregate: of latent vectors: ``"global"``, or ``"local"``: of the states nearest to the query.
            options: fields of :class:`~recsys.retrieval.options.IndexOptions` that differ.
            notify: told what was tried and chosen.
        """
        self._decoder = self._make_decoder(kind, vectors, aggregate, options, notify)
        return self._decoder.index

    @property
    def index_(self) -> ItemIndex:
        """The item index, built on first use."""
        return self.decoder_.index

    @property
    def decoder_(self) -> Decoder:
        """The index with the queries that it takes, built on first use."""
        if self._decoder is None:
            self._decoder = self._make_decoder()
        return self._decoder

    def save_index(self, folder: str | Path) -> None:
        """Write the index as a folder that is whole or absent, with golden queries of some users."""
        self.decoder_.save(folder, golden_states(self._fitted(), self.store_))

    def _make_decoder(
        self,
        kind: str | None = None,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        options: Mapping[str, object] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> Decoder:
        encoder = self._fitted()
        return build_decoder(
            encoder,
            self.store_,
            vectors=vectors,
            aggregate=aggregate,
            kind=kind or self.index,
            options=options,
            fingerprint=fingerprint(encoder),
            vocabulary=self._names.items.digest(),
            seed=self.training_.seed,
            notify=notify,
        )

    def _decoder_of(self, vectors: Vectors, aggregate: Aggregate) -> Decoder:
        """The decoder at hand if it is of these vectors, else one made for the occasion."""
        decoder = self._decoder
        asked = vectors, aggregate
        if decoder is not None and (decoder.decoding.vectors, decoder.decoding.aggregate) == asked:
            return decoder
        return self._make_decoder("exact", vectors, aggregate)

    def _fitted(self) -> SequenceEncoder:
        if not hasattr(self, "encoder_"):
            raise NotFittedError("this Recommender is not fitted; call fit(data), or recsys.load(path)")
        return self.encoder_
