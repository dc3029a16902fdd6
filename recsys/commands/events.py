"""`recsys events`: a service's events back into a log, whether they are whole, and forgetting a user."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.commands.log_options import options_of
from recsys.commands.output import AsJson, print_json, tell
from recsys.datasets.reading.options import ReadOptions

if TYPE_CHECKING:
    from recsys.events.export import Exported
    from recsys.events.store import EventStore, RawId

events_app = typer.Typer(
    help="Events that came in while a model served: a log of them for training, checks, erasure.",
    rich_markup_mode=None,
)

Store = Annotated[
    str,
    typer.Argument(
        metavar="STORE", help="SQLite file or postgresql:// database of events.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    events_app.command("export")(export)
    events_app.command("check")(check)
    events_app.command("erase")(erase)
    events_app.command("exposures")(exposures)
    app.add_typer(events_app, name="events")


@options_of(ReadOptions)
def export(
    store: Store,
    out: Annotated[
        Path, typer.Option(metavar="FILE.parquet", help="File to write, or to replace.", show_default=False)
    ],
    log: Annotated[
        str | None,
        typer.Option(help="Older log whose rows come first, without those of users erased since."),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Leave out events up to this place; else those that --log holds."),
    ] = None,
    through: Annotated[int | None, typer.Option(min=0, help="Last place to write; else the last.")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Write events as a Parquet log for `recsys prepare` and `recsys train`.

    A model of that log reads none of them a second time. The options about columns, times and text say how
    the file of --log is read.
    """
    from recsys.events.export import export_events

    opened = _open(store)
    try:
        done = export_events(
            opened, out, after=after, through=through, log=log, options=ReadOptions(**options)
        )
    finally:
        opened.close()
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    tell(f"{out}: {_exported(done, log)}")
    for name, count in done.no_numbers.items():
        tell(f"column {name!r} holds numbers in {log}: left out {_counted(count, 'other value')} of events")


def check(store: Store, as_json: AsJson = False) -> None:
    """Read a whole event store, and say whether it is sound; exit code 2 if it is not."""
    from recsys.events.integrity import check_store, damaged
    from recsys.events.store import DamagedStoreError

    try:
        opened = _open(store)
        try:
            facts = check_store(opened)
        finally:
            opened.close()
    except DamagedStoreError as error:
        raise damaged(error) from None
    if as_json:
        print_json(asdict(facts))
    else:
        tell(f"sound: {_counted(facts.events, 'event')}, the last place given is {facts.last_seq:,}")


def erase(
    store: Store,
    user: Annotated[str, typer.Option(help="Raw id, as number and as text.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Delete a user's events; services no longer read what their logs hold of the user either."""
    opened = _open(store)
    try:
        erased = sum(opened.erase(one) for one in _spelled(user))
    finally:
        opened.close()
    if as_json:
        print_json({"user": user, "erased": erased})
    else:
        tell(f"user {user}: {_counted(erased, 'event')} deleted")


def exposures(
    store: Store,
    out: Annotated[
        Path, typer.Option(metavar="FILE.parquet", help="File to write, or to replace.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Write the answers that were sent, each with the items of the events that name its request."""
    from recsys.events.exposure_log import write_exposures

    opened = _open(store)
    try:
        rows = write_exposures(opened, out)
    finally:
        opened.close()
    if as_json:
        print_json({"path": str(out), "exposures": rows})
    else:
        tell(f"{out}: {_counted(rows, 'answer')}")


def _exported(done: "Exported", log: str | None) -> str:
    """What an export wrote, in the order of the file's rows."""
    own = f"{_counted(done.events, 'event')} after place {done.after:,} up to {done.through:,}"
    if log is None:
        return own
    left = f" (without {done.erased_rows:,} of users who were erased)" if done.erased_rows else ""
    return f"{_counted(done.old_rows, 'row')} of {log}{left}, then {own}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _spelled(text: str) -> "list[RawId]":
    """The ids that a text may mean: a number is one of a log with numbers, too."""
    try:
        number = int(text)
    except ValueError:
        return [text]
    return [number, text] if str(number) == text and abs(number) < 2**63 else [text]


def _open(store: str) -> "EventStore":
    """Open a store that is there: none is made."""
    from recsys.events.by_place import is_url, open_events
    from recsys.events.store import EventStoreError

    if not is_url(store) and not Path(store).expanduser().is_file():
        raise EventStoreError(f"{store}: no such file; name the event store of a service (RUN.events.db)")
    return open_events(store)
