"""The options of a preparation, as meta.json records them to tell one prepared dataset from another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from recsys.datasets.keywords import check_types, column_names, option, refuse_unknown
from recsys.datasets.preparing.event_options import EventKeywords, EventOptions
from recsys.datasets.reading.options import ReadKeywords, ReadOptions
from recsys.datasets.splitting.options import SplitKeywords, SplitOptions
from recsys.datasets.splitting.registry import split_config
from recsys.errors import ArgumentError

__all__ = ["FilterOptions", "ItemOptions", "PrepareKeywords", "PrepareOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """Which users and items a log keeps.

    Attributes:
        min_events: events that every user and every item must have, dropping and counting again until all
            do (k-core); None keeps all.
        min_user_events: the same for users alone; overrides ``min_events``.
        min_item_events: the same for items alone; overrides ``min_events``.

    Raises:
        ArgumentError: a number is negative.
    """

    min_events: int | None = option(None, "Drop users and items with fewer events, repeatedly (k-core).")
    min_user_events: int | None = option(None, "The same for users alone; overrides --min-events.")
    min_item_events: int | None = option(None, "The same for items alone; overrides --min-events.")

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("min_events", "min_user_events", "min_item_events"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ArgumentError(f"{name}={value} is negative: pass 0 to keep all")

    def least(self, side: str) -> int:
        """Events that each "user" or each "item" needs; 0 keeps all."""
        own: int | None = getattr(self, f"min_{side}_events")
        return (own if own is not None else self.min_events) or 0


class FilterKeywords(TypedDict, total=False):
    """The fields of `FilterOptions` as keywords."""

    min_events: int | None
    min_user_events: int | None
    min_item_events: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOptions:
    """What a model may read of items besides their ids, and whether items without training events stay.

    Attributes:
        item_tags: columns of the item file whose values are tags, as a list or with commas between.
        item_words: columns of text whose words are tags where at least three trained items have them.
        item_vectors: path of a .npy file with a row for each row of the item file, a column of lists of
            numbers, an array, or a function of a list of texts.
        keep_cold: whether events and items without a training event stay, the item file's included.
        denoise: cosine of features above which two items of a user are joined; training events of items
            outside the user's largest group are predicted and not read. None reads all.

    Raises:
        ArgumentError: a name is empty or stands there twice, or nothing tells which items are alike.
    """

    item_tags: Any = option(None, "Columns of the item file whose values are tags, with commas between.")
    item_words: Any = option(None, "Columns of the item file whose words are tags, with commas between.")
    item_vectors: Any = option(None, "Vectors of items: FILE.npy, a row each, or a column of the item file.")
    keep_cold: bool = option(False, "Keep items without a training event, those of the item file too.")
    denoise: float | None = option(
        None,
        "Do not read training events of items unlike the user's others: least cosine of features, 0 to 1.",
    )

    def __post_init__(self) -> None:
        check_types(self)
        if self.denoise is not None and not 0 <= self.denoise < 1:
            raise ArgumentError(f"denoise={self.denoise} is out of range: it must be at least 0 and below 1")
        if self.denoise is not None and not self.asked:
            raise ArgumentError(
                f"denoise={self.denoise} compares items by their features: pass item_tags=, item_words= or"
                " item_vectors="
            )
        for name in ("item_tags", "item_words"):
            column_names(getattr(self, name), name)

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the columns of tags."""
        return column_names(self.item_tags, "item_tags")

    @property
    def words(self) -> tuple[str, ...]:
        """Names of the columns of words."""
        return column_names(self.item_words, "item_words")

    @property
    def asked(self) -> tuple[str, ...]:
        """The options that ask for features."""
        return tuple(
            name for name in ("item_tags", "item_words", "item_vectors") if getattr(self, name) is not None
        )

    def record(self, digest: str | None) -> dict[str, Any]:
        """As meta.json holds it; nothing where nothing was asked for.

        Args:
            digest: hex sha256 of the features.
        """
        recorded: dict[str, Any] = {"keep_cold": True} if self.keep_cold else {}
        if self.denoise is not None:
            recorded["denoise"] = self.denoise
        if self.asked:
            recorded |= {"item_tags": list(self.tags), "item_words": list(self.words)}
            recorded |= {"item_vectors": _name_of(self.item_vectors), "item_features_sha256": digest}
        return recorded


def _name_of(vectors: Any) -> str | None:
    """Where vectors came from, in a word."""
    if vectors is None or isinstance(vectors, str):
        return vectors
    if isinstance(vectors, Path):
        return str(vectors)
    if callable(vectors):
        return str(getattr(vectors, "__qualname__", type(vectors).__qualname__))
    return "array"


class ItemKeywords(TypedDict, total=False):
    """The fields of `ItemOptions` as keywords."""

    item_tags: Any
    item_words: Any
    item_vectors: Any
    keep_cold: bool
    denoise: float | None


class PrepareKeywords(ReadKeywords, SplitKeywords, FilterKeywords, ItemKeywords, EventKeywords, total=False):
    """The keywords of all five."""


OPTIONS = (SplitOptions, FilterOptions, ItemOptions, EventOptions, ReadOptions)
"""The dataclasses whose fields `prepare` takes as keywords."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """All that decides the result besides the log's bytes; recorded in meta.json.

    Attributes:
        read: how the log is read.
        filters: who is kept.
        items: what is taken of the item file.
        events: what is taken of events besides user, item and time.
        split: name of the split.
        split_by: the split's own configuration.
        time_zone: of the users.
        sha256: of further files by role (items, valid, test), where there are such.
        shards: how many datasets are written; None for one without shards.
    """

    read: ReadOptions
    filters: FilterOptions
    items: ItemOptions
    events: EventOptions
    split: str
    split_by: Any
    time_zone: str | None
    sha256: dict[str, str | None]
    shards: int | None = None

    @classmethod
    def of(
        cls,
        keywords: PrepareKeywords,
        *,
        time_zone: str | None = None,
        sha256: dict[str, str | None] | None = None,
        shards: int | None = None,
    ) -> "PrepareOptions":
        """Sort keywords into their places.

        Raises:
            ArgumentError: a keyword is unknown, out of range, or does not belong to the split.
        """
        refuse_unknown(keywords, *OPTIONS)
        given: dict[str, Any] = dict(keywords)
        taken = {
            kind: {name: given[name] for name in kind.__dataclass_fields__ if name in given}
            for kind in OPTIONS
        }
        split, split_by = split_config(SplitOptions(**taken[SplitOptions]))
        return cls(
            read=ReadOptions(**taken[ReadOptions]),
            filters=FilterOptions(**taken[FilterOptions]),
            items=ItemOptions(**taken[ItemOptions]),
            events=EventOptions(**taken[EventOptions]),
            split=split,
            split_by=split_by,
            time_zone=time_zone,
            sha256=sha256 or {},
            shards=shards,
        )

    def record(self) -> dict[str, Any]:
        """As meta.json holds it.

        What the first version recorded always stands there, and the rest only where it was asked for, so
        that data of earlier versions compare equal.
        """
        return {
            "split": self.split,
            "min_user_events": self.filters.least("user"),
            "min_item_events": self.filters.least("item"),
            **self._split_record(),
            "time_zone": self.time_zone,
            "items_sha256": self.sha256.get("items"),
            **{
                f"{role}_sha256": self.sha256[role]
                for role in ("valid", "test", "users")
                if role in self.sha256
            },
            **self.items.record(self.sha256.get("item_features")),
            **self.events.record(),
            **self.read.record(),
            **({"shards": self.shards} if self.shards is not None else {}),
        }

    def _split_record(self) -> dict[str, Any]:
        chosen: dict[str, Any] = dict.fromkeys(("valid_fraction", "test_fraction", "valid_time", "test_time"))
        names = (name for name in self.split_by.__dataclass_fields__ if name not in ("valid", "test"))
        chosen |= {name: getattr(self.split_by, name) for name in names}
        if self.split == "temporal" and chosen["valid_time"] is None:
            chosen["valid_fraction"], chosen["test_fraction"] = self.split_by.shares
        return chosen
