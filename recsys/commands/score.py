"""`recsys score`: recommendations for everybody, in this process or by the processes of a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.commands.engine_options import Address, Engine, Workers, check_engine
from recsys.commands.output import (
    AsJson,
    Backend,
    Categories,
    Context,
    Device,
    Interests,
    Quiet,
    Run,
    pairs,
    print_json,
    say,
    tell,
)


def score(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the Parquet parts.", show_default=False)],
    users: Annotated[
        str, typer.Option(help="all, or a file of user ids: Parquet with a column user_id, or one a line.")
    ] = "all",
    k: Annotated[int, typer.Option(help="Answers per user.")] = 10,
    at: Annotated[
        str | None,
        typer.Option(help="When: unix seconds or 2026-03-01T08:30 (local); else each last event's time."),
    ] = None,
    context: Context = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Zone of the requests, if not the log's: America/New_York or +05:30.")
    ] = None,
    part_users: Annotated[int, typer.Option(help="Users per part.")] = 100_000,
    allow: Annotated[Path | None, typer.Option(help="File of item ids, one a line: only these.")] = None,
    deny: Annotated[Path | None, typer.Option(help="File of item ids, one a line: none of these.")] = None,
    category: Categories = None,
    interests: Interests = 1,
    include_seen: Annotated[bool, typer.Option(help="Let items of the history be answered.")] = False,
    device: Device = "auto",
    backend: Backend = "auto",
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option(help="Replace parts of another scoring.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Recommend for many users of the log into Parquet parts; called again, it goes on where it stopped."""
    on_ray = check_engine(engine, address, workers)
    from recsys.engines.ray_cluster import need_ray
    from recsys.engines.scoring_request import ScoringRequest
    from recsys.recommender import Recommender

    if on_ray:
        need_ray()
    request = ScoringRequest(
        users=None if users == "all" else users,
        k=k,
        exclude_seen=not include_seen,
        allow=None if allow is None else str(allow),
        deny=None if deny is None else str(deny),
        category=category,
        interests=interests,
        at=at,
        context=dict(pairs(context, "--context")) or None,
        time_zone=time_zone,
        part_users=part_users,
    )
    # The others compute: here the run is opened to say what is to be scored.
    model = Recommender.load(run, device="cpu" if on_ray else device, backend=backend)
    if on_ray:
        from recsys.engines.ray_scoring import score_with_ray

        report = score_with_ray(
            model,
            out,
            request,
            device=device,
            workers=workers,
            address=address,
            overwrite=overwrite,
            progress=not quiet,
        )
    else:
        report = model.score(out, **request.arguments(), overwrite=overwrite, progress=not quiet)
    if at is None and model.encoder_.reads_request_time:
        say("Each user is asked for the time of the own last event: --at takes another")
    if report.resumed:
        say(f"{report.resumed} of {len(report.parts)} parts were there already")
    if as_json:
        print_json(
            {
                "path": str(out),
                "users": report.users,
                "rows": report.rows,
                "parts": report.parts,
                "resumed": report.resumed,
            }
        )
    else:
        tell(f"{out}: {report.rows:,} rows for {report.users:,} users in {len(report.parts)} parts")
