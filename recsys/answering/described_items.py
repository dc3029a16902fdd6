"""Items that come after training with their features: read, answered, and held by histories from then on."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from recsys.answering.arguments import short, warn_caller
from recsys.answering.changing_items import already_there
from recsys.answering.item_features import AddedFeatures, later_items
from recsys.answering.names import CATEGORY_COLUMNS, Names
from recsys.answering.queries import OnUnknown
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, DataError, UnknownIdError

if TYPE_CHECKING:
    from recsys.datasets.preparing.new_items import NewItems

__all__ = ["FeatureOptions", "add_described_items", "is_item_file"]


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """Where features of new items are, as `recsys.prepare` takes them, and what becomes of unknown tags."""

    item_tags: Any = None
    item_words: Any = None
    item_vectors: Any = None
    on_unknown: OnUnknown = "raise"

    @property
    def given(self) -> bool:
        """Whether anything says where features are."""
        return any(own is not None for own in (self.item_tags, self.item_words, self.item_vectors))


def is_item_file(ids: Any) -> bool:
    """Whether what was passed for ids is a file or a frame of items with their features."""
    if isinstance(ids, str | PathLike | Mapping) or hasattr(ids, "collect_schema"):
        return True
    return hasattr(ids, "columns")


def add_described_items(
    encoder: SequenceEncoder, decoder: Decoder, names: Names, source: Any, options: FeatureOptions
) -> "NewItems":
    """Let items be answered, and be read in histories, by their features; nothing is trained.

    Args:
        encoder: of items with features, in evaluation mode.
        decoder: an index of its item vectors.
        names: of the log.
        source: an item file or a frame of new items.
        options: where their features are.

    Returns:
        What was read of them.

    Raises:
        ArgumentError: the encoder knows items by their ids alone, the index is of other vectors, an item is
            there already or nothing is known of it, or columns do not fit.
        DataError: the file does not fit, or a tag is unknown and ``on_unknown="raise"``.
        UnknownIdError: a category is unknown and ``on_unknown="raise"``.
    """
    from recsys.datasets.preparing.new_items import read_new_items

    if options.on_unknown not in ("raise", "warn", "ignore"):
        raise ArgumentError(f"on_unknown = {options.on_unknown!r} is not raise, warn or ignore")
    if encoder.item_features_digest is None:
        raise ArgumentError(
            "this model knows items by their ids alone and reads no features: add by like=, category= or "
            "vectors=, or train with encoder.item_parts=id+features on a log prepared with item_tags="
        )
    if decoder.decoding.vectors != "embedding":
        raise ArgumentError(
            f"the index holds {decoder.decoding.vectors} vectors, and features give embeddings: build one of "
            "these, as build_index() and `recsys index RUN` do"
        )
    live = decoder.changing()
    new = read_new_items(
        source,
        names.store,
        item_tags=options.item_tags,
        item_words=options.item_words,
        item_vectors=options.item_vectors,
    )
    _refuse_known(new, decoder, names)
    _complain_of_tags(new, options.on_unknown)
    for bare in new.bare():
        raise DataError(
            f"{new.label}: nothing that the run knows is said of item {short(bare)}: no tag, word or vector; "
            "leave it out"
        )
    categories = _categories_of(new, names, options.on_unknown)
    answerable = names.answerable
    rows = answerable.add(new.ids)
    every = answerable.described(rows, _features(new))
    # An item is read only when the encoder has its features, and answered only when it has its names.
    encoder.set_later_items(later_items(every, len(names.items)))
    answerable.describe(every)
    vectors = encoder.later_item_vectors()[rows - len(names.items)].float().cpu().numpy()
    if "title" in new.table.columns:
        titles = new.table["title"].to_list()
        answerable.entitle(rows, [None if own is None else str(own) for own in titles])
    live.update(add=(rows, vectors))
    if categories is not None:
        answerable.categorize(rows, categories)
    return new


def _refuse_known(new: "NewItems", decoder: Decoder, names: Names) -> None:
    """Refuse items that may be answered, and those of the log, whose features are in the weights."""
    there = set(already_there(decoder, names, new.ids))
    for name, row in zip(new.ids, names.items.encode(new.ids).tolist(), strict=True):
        if row >= 0 or name in there:
            raise ArgumentError(f"{new.label}: item {short(name)} is in the catalog already; leave it out")


def _features(new: "NewItems") -> list[AddedFeatures]:
    return [
        AddedFeatures(
            new.tags[first:last],
            new.tag_weights[first:last],
            None if new.vectors is None else new.vectors[place],
        )
        for place, (first, last) in enumerate(zip(new.tag_offsets, new.tag_offsets[1:], strict=False))
    ]


def _complain_of_tags(new: "NewItems", on_unknown: OnUnknown) -> None:
    if not new.unknown_tags or on_unknown == "ignore":
        return
    one = new.unknown_tags[0]
    more = f" and {len(new.unknown_tags) - 1:,} more" if len(new.unknown_tags) > 1 else ""
    said = f"item {short(one.item)} bears {short(one.name)} in column {one.column!r}{more}, which the run's"
    if on_unknown == "warn":
        warn_caller(f"{new.label}: {said} items do not: left out")
        return
    hint = f"did you mean {one.close!r}? " if one.close else ""
    raise DataError(f"{new.label}: {said} items do not; {hint}on_unknown='warn' leaves such tags out")


def _categories_of(new: "NewItems", names: Names, on_unknown: OnUnknown) -> list[list[str]] | None:
    """The categories of each new item, if both the file and the catalog have such a column."""
    column = next((name for name in CATEGORY_COLUMNS if name in new.table.columns), None)
    if column is None or not names.has_categories:
        return None
    listed = [_as_list(value) for value in new.table[column].to_list()]
    known = set(names.categories[0])
    for name in sorted({name for own in listed for name in own} - known):
        if on_unknown == "raise":
            raise UnknownIdError(
                f"{new.label}: unknown category {short(name)}; on_unknown='warn' leaves such out"
            )
        if on_unknown == "warn":
            warn_caller(f"{new.label}: unknown category {short(name)} left out")
    return [[name for name in own if name in known] for own in listed]


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list | tuple) or hasattr(value, "to_list"):
        return [str(one) for one in value if one is not None]
    return str(value).split("|")
