"""Items that come and go while a run is served: another catalog of the same run, made beside the first.

The run is opened again, changed, warmed up and saved beside its index; then it takes the place of the one
that answers, as any other model does, under another version. So no answer and no kept vector is of two
catalogs, the other workers follow as they follow a load, and a restart finds the items.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recsys.answering.changing_items import already_there
from recsys.answering.each import Request
from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import RawId
from recsys.recommender import Recommender
from recsys.retrieval.bundle import bundle_exists
from recsys.run_folder import RunFolder
from recsys.serving.engine.asking import CatalogError, NewItem
from recsys.serving.engine.loading import load_served, warm_up
from recsys.serving.engine.served import Served, same_run, with_saved_index

Change = Callable[[Recommender], None]


def adding(item: RawId, new: NewItem) -> Change:
    """Let an item be answered, or give one that is answered another vector.

    Args:
        item: raw id of the log's kind.
        new: what it is.
    """

    def add(model: Recommender) -> None:
        """Add it.

        Raises:
            ArgumentError: the message begins with the field that does not fit.
        """
        if new.features is not None:
            _add_described(model, item, new, new.features)
            return
        known = None if new.like is None else _answerable(model, new.like)
        width = model.decoder_.index.width
        if new.vector is not None and len(new.vector) != width:
            raise ArgumentError(f"vector: {len(new.vector)} numbers; the index's vectors have {width}")
        try:
            model.add_items(
                [item],
                vectors=None if new.vector is None else [list(new.vector)],
                like=None if known is None else [known],
                category=None if new.category is None else [new.category],
                title=None if new.title is None else [new.title],
            )
        except UnknownIdError as error:
            # What it is like is known: only the category is left.
            raise ArgumentError(f"category: {error}") from None

    return add


def _add_described(
    model: Recommender,
    item: RawId,
    new: NewItem,
    features: Mapping[str, str | Sequence[str] | Sequence[float]],
) -> None:
    """Add an item by its features, or put others in the place of those that it was added with."""
    if model.encoder_.item_features_digest is None:
        raise ArgumentError(
            "features: this model knows items by their ids alone: send like, vector or category"
        )
    record = model.store_.meta["options"]
    tags, words = (
        [name for name in record[kind] if name in features] for kind in ("item_tags", "item_words")
    )
    places = (name for name in (record["item_vectors"], "vector") if name in features)
    vectors = next((name for name in places if name not in (*tags, *words)), None)
    others = sorted(features.keys() - {*tags, *words, vectors})
    if others:
        known = ", ".join([*record["item_tags"], *record["item_words"]]) or "vector alone"
        raise ArgumentError(f"features: the model was trained without {others[0]!r}; it knows {known}")
    columns: dict[str, list[Any]] = {"title": [new.title], "category": [new.category]}
    columns = {name: values for name, values in columns.items() if values != [None]}
    columns |= {"item_id": [item], **{name: [value] for name, value in features.items()}}
    if already_there(model.decoder_, model._names, [item]) and model._names.items.encode([item])[0] < 0:
        model.remove_items([item])
    try:
        model.add_items(columns, item_tags=tags or None, item_words=words or None, item_vectors=vectors)
    except RecsysError as error:
        # The file is the request, which has no say in what becomes of unknown tags.
        said = str(error).removeprefix("items: ").partition("on_unknown=")[0].rstrip("; ")
        raise ArgumentError(f"features: {said}") from None


def removing(item: RawId) -> Change:
    """Let an item be answered no more.

    Args:
        item: raw id of the log's kind.
    """

    def remove(model: Recommender) -> None:
        """Remove it.

        Raises:
            UnknownIdError: it is not answered now.
        """
        if not already_there(model.decoder_, model._names, [item]):
            raise UnknownIdError(f"item {item!r} is not in the catalog: check the id")
        model.remove_items([item])

    return remove


def amended(served: Served, change: Change, recent: Sequence[Request], *, device: str) -> Served:
    """The same run with another catalog, saved beside its index and warmed up.

    Args:
        served: the run in service, as it goes on.
        change: of the catalog that lies in its folder.
        recent: requests to warm up with.
        device: as of `Recommender.load`.

    Raises:
        UnknownIdError, ArgumentError: the change does not fit the catalog.
        CatalogError: the folder holds another model by now, or cannot be read or written; nothing changed.
    """
    try:
        fresh = load_served(served.name, served.path, device=device)
    except RecsysError as error:
        raise CatalogError(f"the catalog cannot be changed: {error}") from None
    if not same_run(fresh, served):
        raise CatalogError(
            f"the catalog cannot be changed: {served.path} holds another model than the one in service; "
            "load it first"
        )
    change(fresh.model)
    warm_up(fresh, recent)
    try:
        index = RunFolder(served.path).index
        if bundle_exists(index):
            fresh.model.save_changes()
        else:
            fresh.model.save_index(index)
    except RecsysError as error:
        raise CatalogError(f"the catalog cannot be saved: {error}") from None
    return with_saved_index(fresh)


def _answerable(model: Recommender, ids: Sequence[RawId]) -> list[RawId]:
    there = set(already_there(model.decoder_, model._names, list(ids)))
    for raw in ids:
        if raw not in there:
            raise ArgumentError(f"like: item {raw!r} is not in the catalog: leave it out")
    return list(ids)
