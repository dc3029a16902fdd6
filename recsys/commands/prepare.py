"""`recsys datasets` and `recsys prepare`: from a log to a prepared dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.engine_options import Address, Engine, Workers, check_engine
from recsys.commands.log_options import Items, TimeZone, options_of
from recsys.commands.output import AsJson, Quiet, print_json, say, tell
from recsys.console.text import table
from recsys.datasets.preparing.options import OPTIONS
from recsys.errors import ConfigError


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


@options_of(*OPTIONS)
def prepare(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG", help="A log file, a folder of Parquet parts, or a name from `recsys datasets`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    time_zone: TimeZone = None,
    items: Items = None,
    shards: Annotated[
        int | None,
        typer.Option(help="Write a store of so many shards, for logs that no memory holds."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a prepared dataset made otherwise.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Read a log, check it, filter it, split it, and write a prepared dataset."""
    on_ray = check_engine(engine, address, workers)
    if on_ray and shards is None:
        raise ConfigError("--engine ray prepares a store of shards: pass --shards, a number a worker or more")
    options |= {"items": items, "time_zone": time_zone, "overwrite": overwrite, "notify": say}
    if on_ray:
        from recsys.engines.ray_prepare import prepare_with_ray

        store = prepare_with_ray(log, out, shards=shards, workers=workers, address=address, **options)
    else:
        from recsys.datasets.preparing.prepare import prepare as prepare_log

        store = prepare_log(log, out, shards=shards, **options)
    if as_json:
        print_json({"path": str(store.path), **store.meta})
    else:
        tell(_describe_store(store))


def _describe_store(store: Any) -> str:
    from recsys.datasets.preparing.summary import parts_line, summary

    tie = store.meta.get("tie_share")
    lines = [
        f"{store.path}: {store.n_users:,} users, {store.n_items:,} items, {store.n_events:,} events"
        + (f", {len(store.meta['shards']):,} shards" if "shards" in store.meta else ""),
        parts_line(store),
        *summary(store),
    ]
    if tie is not None:
        lines.append(f"users whose split is decided by file order (equal timestamps): {tie:.1%}")
    return "\n".join(lines)


def _known_as_json(dataset: Any) -> dict[str, Any]:
    import dataclasses

    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(dataset).items()}
