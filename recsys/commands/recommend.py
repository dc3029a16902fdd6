"""`recsys recommend`: what comes next, for a user of the log or for any history."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.answering.id_files import read_ids
from recsys.commands.output import (
    AsJson,
    Backend,
    Categories,
    Context,
    Interests,
    Run,
    pairs,
    print_json,
    say,
    split_ids,
    tell,
)
from recsys.console.text import table
from recsys.errors import ConfigError, UnknownIdError


def recommend(
    run: Run,
    user: Annotated[list[str] | None, typer.Option(help="Raw id of a user of the training log.")] = None,
    history: Annotated[
        str | None,
        typer.Option(help='Raw item ids, oldest first, with commas; "in, quotation marks" if they hold one.'),
    ] = None,
    history_file: Annotated[
        Path | None, typer.Option(help="File of the history's item ids, oldest first, one a line.")
    ] = None,
    times: Annotated[
        str | None,
        typer.Option(help="Times of the history's events as --at, with commas; for models that read times."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUES",
            help="What came with the history's events, with commas: action=view,buy; again for another.",
        ),
    ] = None,
    context: Context = None,
    at: Annotated[
        str | None,
        typer.Option(help="When: unix seconds or 2026-03-01T08:30 (local); else the last event's time."),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Zone of the request, if not the log's: America/New_York or +05:30.")
    ] = None,
    k: Annotated[int, typer.Option(help="Answers.")] = 10,
    allow: Annotated[Path | None, typer.Option(help="File of item ids, one a line: only these.")] = None,
    deny: Annotated[Path | None, typer.Option(help="File of item ids, one a line: none of these.")] = None,
    category: Categories = None,
    interests: Interests = 1,
    include_seen: Annotated[bool, typer.Option(help="Let items of the history be answered.")] = False,
    backend: Backend = "auto",
    on_unknown: Annotated[
        str, typer.Option(metavar="raise|warn|ignore", help="What is done about unknown item ids.")
    ] = "raise",
    as_json: AsJson = False,
) -> None:
    """Answer what comes next, for a user of the log or for any history."""
    if sum(given is not None for given in (user or None, history, history_file)) != 1:
        raise ConfigError("pass either --user ID or --history a,b,c (or --history-file FILE)")
    if user and len(user) > 1:
        raise ConfigError(
            f"--user is given {len(user)} times: one user a call; `recsys score --users FILE` answers many"
        )
    if times is not None and user:
        raise ConfigError("--times goes with --history: the times of the log's users are known")
    if columns and user:
        raise ConfigError("--columns goes with --history: what came with the log's events is known")
    with_events = {name: [split_ids(value, "--columns")] for name, value in pairs(columns, "--columns")}
    known = dict(pairs(context, "--context"))
    seconds = None if times is None else [_seconds(times)]
    from recsys.answering.answers import QueryOptions
    from recsys.recommender import Recommender

    model = Recommender.load(run, device="cpu", backend=backend)
    events = read_ids(history_file) if history is None else split_ids(history, "--history")
    options = QueryOptions(
        k=k,
        exclude_seen=not include_seen,
        allow=read_ids(allow),
        deny=read_ids(deny),
        category=category,
        interests=interests,
    )
    histories = None if events is None else [events]
    try:
        answers = model._answer(
            user or None,
            histories,
            seconds,
            at,
            time_zone,
            options,
            on_unknown,  # type: ignore[arg-type]
            with_events or None,
            known or None,
        )
    except UnknownIdError as error:
        raise _with_commas(error, history) from None
    found = answers.frame(model._names)
    asked = answers.asked_at()
    if asked is not None:
        moment = asked["local"] or f"{asked['unix']} unix seconds"
        say(f"Asked for {moment}" + ("" if at else ", the time of the last event: --at takes another"))
    rows = found.to_dicts()
    if as_json:
        keys = ("item_id", "score", "title") if "title" in found.columns else ("item_id", "score")
        names = {"item_id": "item"}
        facts: dict[str, Any] = {"user": user[0] if user else None}
        if asked is not None:
            facts["asked_at"] = asked
        facts["source"] = found["source"][0] if rows else None
        facts["items"] = [{names.get(n, n): row[n] for n in keys} for row in rows]
        print_json(facts)
        return
    columns = [c for c in ("rank", "item_id", "score", "title") if c in found.columns]
    cells = [[f"{row[c]:.3f}" if c == "score" else row[c] for c in columns] for row in rows]
    tell(table(columns, cells, left=("item_id", "title")))


def _with_commas(error: UnknownIdError, history: str | None) -> UnknownIdError:
    """The error, and what to do if the ids themselves hold the commas at which they were parted."""
    if history is None or "," not in history or '"' in history:
        return error
    return UnknownIdError(f"{error}; an id that holds a comma is quoted: --history '\"a, b\",c'")


def _seconds(text: str) -> list[Any]:
    from recsys.answering.request_times import parse_moment
    from recsys.errors import ArgumentError

    try:
        return [parse_moment(part.strip()) for part in text.split(",") if part.strip()]
    except ArgumentError:
        raise ConfigError(
            f"--times {text!r}: write unix seconds as 881250949,881250950, or 2026-03-01T08:30,..."
        ) from None
