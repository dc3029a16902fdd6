"""What a fitted model does with its item index: build, save, neighbours of items, scoring of everybody."""

import warnings
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
from recsys.kernels.shared.backends import prefer_backend
from recsys.offline_scoring import ScoringReport, score_parts
from recsys.retrieval.changes import Changes
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
        backend: kernels to run on.
        encoder_: the trained encoder.
        store_: the prepared data it was trained on.
        training_: how it was trained.
    """

    index: str
    backend: str
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

        `save_changes` keeps them beside the saved index.

        Args:
            ids: raw ids; an item that is there gets the new vector.
            vectors: (n, d) theirs, in the space of the index's vectors.
            like: or for each the raw ids of known items that it is like: it gets their mean.
            category: for each a category of the catalog, under which it is found from now on; with neither
                vectors nor like it gets the mean of the category's items.

        Raises:
            ArgumentError: both vectors and like, none of the three, or one of them does not fit.
            UnknownIdError: a known item or category is not in the catalog.
        """
        if vectors is not None and like is not None:
            raise ArgumentError("pass vectors or like, not both")
        if vectors is None and like is None and category is None:
            raise ArgumentError("pass vectors, like or category: one of them, for all items that are added")
        new = list(ids)
        kinds = None if category is None else list(category)
        if kinds is not None and len(kinds) != len(new):
            raise ArgumentError(f"{len(new)} items are added and {len(kinds)} categories: give one each")
        live = self.decoder_.changing()
        # Names that are not known are refused before anything is changed.
        members = {name: self._names.of_category(name) for name in set(kinds or ())}
        rows: list[Any] | None = None
        if like is not None:
            rows = [self._names.answerable_rows(known, "like") for known in like]
        elif vectors is None and kinds is not None:
            here = live.snapshot().ids
            rows = [np.intersect1d(members[name], here) for name in kinds]
        given = new_vectors(live, len(new), vectors=vectors, like=rows)
        if given.shape != (len(new), self.index_.width):
            raise ArgumentError(f"vectors has shape {given.shape}: give ({len(new)}, {self.index_.width})")
        places = self._names.answerable.add(new)
        live.update(add=(places, given))
        if kinds is not None:
            self._names.answerable.categorize(places, [[name] for name in kinds])

    def remove_items(self, ids: Iterable[Any]) -> None:
        """Let items no longer be answered, at once. Histories may still hold them.

        Args:
            ids: raw ids.

        Raises:
            UnknownIdError: an id is in neither the log nor the items added.
            ArgumentError: nothing would be left.
        """
        self.decoder_.changing().update(remove=self._names.answerable_rows(ids, "remove"))

    def save_changes(self) -> Path:
        """Write the items that came and went beside the saved index, which stays as it lies.

        Killed at any moment, the folder holds the catalog of before or of now.

        Returns:
            The folder of the index.

        Raises:
            ArgumentError: the index was neither loaded nor saved, or nothing came or went.
            RetrievalError: another process changed the folder in between, or it cannot be written.
        """
        changes = self._changes()
        if changes is None:
            raise ArgumentError("nothing was added or removed")
        return self.decoder_.save_changes(changes)

    def _changes(self) -> Changes | None:
        live = self.decoder_.live
        return None if live is None else self._names.answerable.changes(live)

    def score(
        self,
        out: str | Path,
        users: Iterable[Any] | None = None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        category: str | Iterable[str] | None = None,
        interests: int = 1,
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
            category: only items of this category, or of any of these.
            interests: query vectors per user, as in `recommend`.
            part_users: users per part; bounds the memory.
            overwrite: begin anew where the folder holds parts of another call.
            progress: whether a bar may be drawn.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        wanted = Wanted(
            k=k, exclude_seen=exclude_seen, allow=allow, deny=deny, category=category, interests=interests
        )
        encoder = self._fitted()
        with prefer_backend(self.backend):
            return score_parts(
                encoder,
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

        Items that came or went stay so, unless the new vectors are others than those that the added ones were
        given: these are then left out, and a warning says how many.

        Raises:
            ArgumentError: an unknown name, or local vectors although items came or went.
        """
        before = self._decoder
        changed = before is not None and before.live is not None and len(before.live.changes()) > 0
        if aggregate == "local" and changed:
            raise ArgumentError(
                "items were added or removed, which local vectors cannot follow: take aggregate='global'"
            )
        made = self._make_decoder(kind, vectors, aggregate, options, notify)
        if before is not None and changed:
            _carry(before, made)
        self._decoder = made
        return made.index

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
        """Write the index as a folder that is whole or absent, with golden queries of some users.

        Items that came or went since the index was built are written with it.
        """
        encoder = self._fitted()
        with prefer_backend(self.backend):
            self.decoder_.save(folder, golden_states(encoder, self.store_), self._changes())

    def measure_recall(self, users: int = 256, k: int = 10) -> float:
        """Find out which share of the k best items the index finds, over states of some users.

        Args:
            users: asked, evenly spaced; all of them if there are fewer.
            k: answers per user; all items if there are fewer.

        Returns:
            1.0 for an exact kind. Ties count as found.
        """
        decoder = self.decoder_
        if decoder.index.exact or decoder.local is not None:
            return 1.0
        with prefer_backend(self.backend):
            states = golden_states(self._fitted(), self.store_, users).numpy()
        return decoder.index.measure_recall(decoder.queries(states), min(k, decoder.index.n_items))

    def _make_decoder(
        self,
        kind: str | None = None,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        options: Mapping[str, object] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> Decoder:
        encoder = self._fitted()
        with prefer_backend(self.backend):
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


def _carry(before: Decoder, made: Decoder) -> None:
    """Let items that came or went do so in a new decoder, too."""
    assert before.live is not None
    changes = before.live.changes()
    removed = np.setdiff1d(changes.gone, changes.ids)
    added = (changes.ids, changes.vectors) if len(changes.ids) else None
    if added is not None and made.decoding != before.decoding:
        warnings.warn(
            f"{len(changes.ids)} added or changed item(s) are left out, as their vectors are not of the new "
            "index's kind: add them again",
            stacklevel=3,
        )
        added = None
    if len(removed) or added is not None:
        made.changing().update(add=added, remove=removed)
