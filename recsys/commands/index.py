"""Commands of the item index: `recsys index [build|add|remove]`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.output import (
    AsJson,
    Backend,
    OrBuild,
    Quiet,
    Run,
    print_json,
    say,
    split_ids,
    tell,
)
from recsys.errors import ConfigError, DataError, RetrievalError

index_app = typer.Typer(
    cls=OrBuild,
    help="Build a run's item index anew, or change what it answers: `recsys index RUN` is `index build RUN`.",
    rich_markup_mode=None,
)


_TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".item", ".dat")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    index_app.command("build")(build)
    index_app.command("add")(add)
    index_app.command("remove")(remove)
    app.add_typer(index_app, name="index")


def build(
    run: Run,
    kind: Annotated[
        str,
        typer.Option(
            help="auto (by catalog size), exact, flat, ivf, ivfpq, hnsw; gpu-flat, gpu-ivf, gpu-cagra; on a "
            "server: qdrant, pgvector."
        ),
    ] = "auto",
    vectors: Annotated[
        str,
        typer.Option(
            help="embedding: the tied table; latent: mean states of the histories that an item followed; "
            "mixed: both, by a weight chosen on validation."
        ),
    ] = "embedding",
    aggregate: Annotated[
        str,
        typer.Option(help="latent: global (one vector an item) or local (of the states nearest the query)."),
    ] = "global",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. ef_search=200, nprobe=64, hnsw_m=16.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="qdrant: http://host:6333; QDRANT_API_KEY holds the key, if any.")
    ] = None,
    dsn: Annotated[
        str | None, typer.Option(help="pgvector: postgresql://user@host/database; PGPASSWORD or ~/.pgpass.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="qdrant, pgvector: name of the index on the server.")
    ] = None,
    backend: Backend = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Build a run's item index anew; items added and removed since stay so where the vectors are alike."""
    place = {"url": url, "dsn": dsn, "collection": collection}
    options = _options(settings or []) | {name: value for name, value in place.items() if value is not None}
    from recsys.decoding.decoder import check_decoding
    from recsys.recommender import Recommender
    from recsys.retrieval.backends import check_kind
    from recsys.retrieval.checks import check_options
    from recsys.run_folder import RunFolder

    check_decoding(vectors, aggregate)
    check_kind(kind, check_options(options))
    try:
        model = Recommender.load(run, device="cpu", backend=backend)
    except RetrievalError as error:
        # The old index may be the reason for building a new one.
        say(f"Not taken over: {error}")
        model = Recommender.load(run, device="cpu", backend=backend, with_index=False)
    built = model.build_index(
        kind,
        vectors=vectors,  # type: ignore[arg-type]
        aggregate=aggregate,  # type: ignore[arg-type]
        options=options,
        notify=say,
    )
    folder = RunFolder(run).index
    model.save_index(folder)
    facts = {
        "kind": built.kind,
        "items": built.n_items,
        "d_model": built.width,
        "reason": built.reason,
        "metric": built.metric,
        "recall": model.measure_recall(),
        **built.notes,
        "bytes": _size(folder),
    }
    if as_json:
        print_json(facts)
        return
    tell(f"{built.kind} index of {built.n_items:,} items: {built.reason}")
    if not built.exact:
        tell(_recall_in_words(facts["recall"], built.kind))


_LOW_RECALL = 0.9


def _recall_in_words(recall: float, kind: str) -> str:
    """What an approximate index finds, and what to do if that is little."""
    found = f"It finds {recall:.1%} of the 10 best items, over states of up to 256 users"
    if recall >= _LOW_RECALL:
        return f"{found}."
    from recsys.retrieval.backends import low_recall_remedy

    return f"{found}: {low_recall_remedy(kind)}, which finds all."


def add(
    run: Run,
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="ITEM...|FILE",
            help="Raw ids, or one file of new items with the features that the run was trained with.",
            show_default=False,
        ),
    ],
    like: Annotated[
        list[str] | None,
        typer.Option(help="Known items, with commas, whose mean vector it gets; once for each ITEM."),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(help="Its category, whose mean vector it gets without --like; once for each ITEM."),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="NumPy file of their vectors, (ITEMs, d), in the index's space.")
    ] = None,
    item_tags: Annotated[
        str | None,
        typer.Option(
            help="Of FILE: columns of tags, with commas; with no such option, all features of the run."
        ),
    ] = None,
    item_words: Annotated[str | None, typer.Option(help="Of FILE: columns of words, with commas.")] = None,
    item_vectors: Annotated[
        str | None, typer.Option(help="Of FILE: vectors, FILE.npy with a row each, or a column of FILE.")
    ] = None,
    on_unknown: Annotated[
        str,
        typer.Option(
            metavar="raise|warn|ignore", help="What is done about tags and categories the run does not know."
        ),
    ] = "raise",
    as_json: AsJson = False,
) -> None:
    """Let items be answered that the log does not know, or give known ones another vector.

    Items of a FILE get their vectors from their features, and histories may hold them, too.
    """
    from recsys.answering.changing_items import already_there
    from recsys.recommender import Recommender

    model = Recommender.load(run, device="cpu")
    _need_index(model, run)
    features = {"item_tags": item_tags, "item_words": item_words, "item_vectors": item_vectors}
    described = any(given is not None for given in features.values())
    if described and len(items) != 1:
        raise ConfigError(f"pass one file of new items with their features: {len(items)} are given")
    if described or (len(items) == 1 and (like, category, vectors) == (None,) * 3 and _is_table(items[0])):
        new = model.add_items(
            Path(items[0]),
            vectors=vectors,
            like=like,
            category=category,
            **features,
            on_unknown=on_unknown,  # type: ignore[arg-type]
        )
        assert new is not None
        if new.unread:
            say(f"Not read of these items: {', '.join(new.unread)}")
        if new.unknown_words:
            say(f"{new.unknown_words:,} word(s) that the run's items do not have are left out")
        more = {"new": len(new), "unread": new.unread, "unknown_words": new.unknown_words}
        _tell_changes(model, as_json, more)
        return
    replaced = already_there(model.decoder_, model._names, items)
    model.add_items(
        items,
        vectors=None if vectors is None else _read_vectors(vectors),
        like=None if like is None else [split_ids(text, "--like") for text in like],
        category=category,
    )
    if replaced:
        shown = ", ".join(replaced[:5]) + (f" and {len(replaced) - 5} more" if len(replaced) > 5 else "")
        say(f"Known already, the vector replaced: {shown}")
    _tell_changes(model, as_json, {"replaced": replaced})


def remove(
    run: Run,
    items: Annotated[list[str], typer.Argument(metavar="ITEM...", help="Raw ids.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Let items no longer be answered. Histories may still hold them."""
    from recsys.recommender import Recommender

    model = Recommender.load(run, device="cpu")
    _need_index(model, run)
    model.remove_items(items)
    _tell_changes(model, as_json)


def _need_index(model: Any, run: Path) -> None:
    if model._decoder is None:
        raise RetrievalError(f"{run}: holds no index to change; make one with `recsys index {run}`")
    if model._decoder.local is None:
        # What is changed and saved, and never searched, needs no new base.
        model._decoder.changing().rebuild_share = None


def _tell_changes(model: Any, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Write what came and went, and print how much of it there is now."""
    folder = model.save_changes()
    # As they lie there: what is searched may have been rebuilt with them meanwhile.
    changes = model._names.changes(model.decoder_.live)
    facts = {
        "path": str(folder),
        "items": model.decoder_.n_answerable,
        "added": len(changes.ids),
        "gone": len(changes.gone),
        "bytes": _size(folder),
        **(more or {}),
    }
    if as_json:
        print_json(facts)
    else:
        tell(
            f"{folder}: {facts['items']:,} items are answered; {facts['added']:,} vectors beside the index, "
            f"{facts['gone']:,} of its rows gone"
        )


def _is_table(name: str) -> bool:
    """Whether an argument names a file of items rather than an item."""
    return Path(name).suffix.lower() in _TABLES or Path(name).is_file()


def _read_vectors(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError):
        # NumPy's own words advise to load whatever the file holds.
        raise DataError(f"{path}: is not a NumPy file (.npy) of numbers") from None


def _options(settings: list[str]) -> dict[str, object]:
    options: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as key=value, e.g. ef_search=200")
        options[key.strip().removeprefix("index.")] = value.strip()
    return options


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
