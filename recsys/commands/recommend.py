"""`recsys recommend`: what comes next, for a user of the log or for any history."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.commands.output import AsJson, Backend, Categories, Interests, Run, print_json, read_ids, tell
from recsys.console.text import table
from recsys.errors import ConfigError


def recommend(
    run: Run,
    user: Annotated[str | None, typer.Option(help="Raw id of a user of the training log.")] = None,
    history: Annotated[str | None, typer.Option(help="Raw item ids, oldest first, with commas.")] = None,
    times: Annotated[
        str | None,
        typer.Option(help="Unix seconds of the history's events, with commas; for models that read times."),
    ] = None,
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
    on_unknown: Annotated[str, typer.Option(help="raise, warn or ignore unknown item ids.")] = "raise",
    as_json: AsJson = False,
) -> None:
    """Answer what comes next, for a user of the log or for any history."""
    if (user is None) == (history is None):
        raise ConfigError("pass either --user ID or --history a,b,c")
    if times is not None and history is None:
        raise ConfigError("--times goes with --history: the times of the log's users are known")
    seconds = None if times is None else [_seconds(times)]
    from recsys.recommender import Recommender

    model = Recommender.load(run, device="cpu", backend=backend)
    found = model.recommend(
        users=None if user is None else [user],
        histories=None if history is None else [[i.strip() for i in history.split(",") if i.strip()]],
        times=seconds,
        at=at,
        time_zone=time_zone,
        k=k,
        exclude_seen=not include_seen,
        allow=read_ids(allow),
        deny=read_ids(deny),
        category=category,
        interests=interests,
        on_unknown=on_unknown,  # type: ignore[arg-type]
    )
    rows = found.to_dicts()
    if as_json:
        keys = ("item_id", "score", "title") if "title" in found.columns else ("item_id", "score")
        names = {"item_id": "item"}
        print_json({"user": user, "items": [{names.get(n, n): row[n] for n in keys} for row in rows]})
        return
    columns = [c for c in ("rank", "item_id", "score", "title") if c in found.columns]
    cells = [[f"{row[c]:.3f}" if c == "score" else row[c] for c in columns] for row in rows]
    tell(table(columns, cells, left=("item_id", "title")))


def _seconds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--times {text!r}: write unix seconds as 881250949,881250950") from None
