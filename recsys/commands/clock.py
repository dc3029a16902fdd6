"""`recsys clock`: pictures of what the interest clock has learned of a user, and of where it helps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.commands.output import AsJson, Quiet, Run, print_json, say, tell
from recsys.console.text import keyed_table
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.answering.user_clock import UserClock


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("clock")(clock)


def clock(
    run: Run,
    user: Annotated[
        str | None, typer.Option(help="Raw id of a user of the log; without it, NDCG by hour of the test.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another run on the same data beside it, e.g. without a clock.")
    ] = None,
    most: Annotated[int, typer.Option(help="Categories, or items, of a user to tell apart; 1 to 8.")] = 6,
    out: Annotated[
        Path | None, typer.Option(help="Picture: .png, .svg or .pdf; else into the run's plots/.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw a user's 24 hours as the interest clock reads them, or NDCG by hour of the day.

    With --user: the share of each category (of each item, where the catalog has no categories) in what the
    clock pools at every local hour. Without: NDCG@10 of the test requests by local hour, of RUN and of each
    --against run.
    """
    if user is None:
        _by_hour(run, against or [], out, as_json, quiet)
        return
    if against:
        raise ConfigError("--against compares runs by hour: leave out --user")
    if not 1 <= most <= 8:
        raise ConfigError(f"--most {most}: between 1 and 8")
    from recsys.answering.user_clock import read_user_clock
    from recsys.answering.user_clock_plot import plot_user_clock
    from recsys.recommender import Recommender
    from recsys.run_folder import RunFolder

    model = Recommender.load(run, device="cpu", with_index=False)
    found = read_user_clock(model.encoder_, model.store_, user, most=most)
    # An id may be a path or hold anything: the file has its own name.
    path = plot_user_clock(found, out or RunFolder(run).plots / "user-clock.png")
    say(f"Written: {path}")
    if as_json:
        print_json(found.to_json())
    else:
        tell(_table(found))


def _table(found: "UserClock") -> str:
    rows = [
        [f"{hour:02d}", *(f"{share:.2f}" for share in row), f"{found.prior[hour]:.2f}"]
        for hour, row in enumerate(found.shares)
    ]
    headers = ("hour", *found.labels, "prior")
    return keyed_table(headers, rows, fixed=("hour", "prior"), meaning="share of column")


def _by_hour(run: Path, against: list[Path], out: Path | None, as_json: bool, quiet: bool) -> None:
    from recsys.datasets.times.local_times import require_local_times
    from recsys.evaluation.hour_plot import plot_by_hour
    from recsys.recommender import Recommender
    from recsys.run_folder import RunFolder

    hours: dict[str, Any] = {}
    first = None
    for path in [run, *against]:
        model = Recommender.load(path, device="cpu", with_index=False)
        require_local_times(model.store_)
        if first is not None and model.store_.fingerprint != first.store_.fingerprint:
            raise ConfigError(f"{path}: trained on other data than {run}, so that hours do not compare")
        first = first or model
        hours[str(path)] = model.evaluate(progress=not quiet).slices["hour"]
    assert first is not None
    rows = [part["rows"] for part in hours[str(run)].values()]
    lines = {Path(name).name: [p["ndcg@10"] for p in parts.values()] for name, parts in hours.items()}
    if len(lines) < len(hours):
        lines = {name: [p["ndcg@10"] for p in parts.values()] for name, parts in hours.items()}
    picture = plot_by_hour(
        {"all items ranked": lines},
        rows,
        out or RunFolder(run).plots / "ndcg-by-hour.png",
        title=f"{first.store_.name}, test: {sum(rows):,} requests",
    )
    say(f"Written: {picture}")
    if as_json:
        print_json({"hours": hours})
        return
    table = [
        [
            f"{hour:02d}",
            rows[hour],
            *("" if values[hour] is None else f"{values[hour]:.4f}" for values in lines.values()),
        ]
        for hour in range(24)
    ]
    fixed = ("hour", "requests")
    tell(keyed_table((*fixed, *lines), table, fixed=fixed, meaning="NDCG@10 of column"))
