"""`recsys datasets` and `recsys prepare`: from a log to a prepared dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.output import AsJson, print_json, say, tell
from recsys.console.text import table


def list_datasets(as_json: AsJson = False) -> None:
    """List the logs known by name: what they are, where they come from, what is here."""
    from recsys.datasets.sources.known import list_known

    known = list_known()
    if as_json:
        print_json({"datasets": [_known_as_json(dataset) for dataset in known]})
        return
    rows = [
        [d.name, f"{d.users:,}", f"{d.items:,}", f"{d.rows:,}", "yes" if d.cached else "no", d.licence]
        for d in known
    ]
    tell(
        table(("name", "users", "items", "events", "here", "licence"), rows, left=("name", "here", "licence"))
    )


def prepare(
    log: Annotated[str, typer.Argument(metavar="LOG", help="A log file, or a name from `recsys datasets`.")],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    split: Annotated[str, typer.Option(help="leave-one-out or temporal.")] = "leave-one-out",
    min_events: Annotated[
        int | None, typer.Option(help="Drop users and items with fewer events, repeatedly (k-core).")
    ] = None,
    valid_fraction: Annotated[float, typer.Option(help="Temporal split: share of events to validate.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(help="Temporal split: share of events to test.")] = 0.1,
    user_column: Annotated[str | None, typer.Option(help="Column of user ids.")] = None,
    item_column: Annotated[str | None, typer.Option(help="Column of item ids.")] = None,
    timestamp_column: Annotated[str | None, typer.Option(help="Column of times, or of positions.")] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="s, ms, us or ns; order if the column only orders events.")
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Field separator of a text log.")] = None,
    header: Annotated[
        bool | None,
        typer.Option(help="Whether the first line of text names columns; found out if left out."),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(
            help="Users' zone, for clocks: America/New_York, +05:30, or column:NAME (such zones, or minutes)."
        ),
    ] = None,
    file_format: Annotated[str | None, typer.Option("--format", help="Format, if the name misleads.")] = None,
    items: Annotated[Path | None, typer.Option(help="File with item titles.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a prepared dataset made otherwise.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a log, check it, filter it, split it, and write a prepared dataset."""
    from recsys.datasets.preparing.prepare import prepare as prepare_log

    store = prepare_log(
        log,
        out,
        split=split,
        min_events=min_events,
        valid_fraction=valid_fraction,
        test_fraction=test_fraction,
        header=header,
        user_column=user_column,
        item_column=item_column,
        timestamp_column=timestamp_column,
        time_unit=time_unit,
        time_zone=time_zone,
        separator=separator,
        format=file_format,
        items=items,
        overwrite=overwrite,
        notify=say,
    )
    if as_json:
        print_json({"path": str(store.path), **store.meta})
    else:
        tell(_describe_store(store))


def _describe_store(store: Any) -> str:
    tie = store.meta.get("tie_share")
    lines = [
        f"{store.path}: {store.n_users:,} users, {store.n_items:,} items, {len(store.items):,} events",
        f"split: {store.meta['options']['split']}",
    ]
    if tie is not None:
        lines.append(f"users whose split is decided by file order (equal timestamps): {tie:.1%}")
    return "\n".join(lines)


def _known_as_json(dataset: Any) -> dict[str, Any]:
    import dataclasses

    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(dataset).items()}
