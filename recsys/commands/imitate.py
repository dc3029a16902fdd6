"""`recsys imitate`: a log like another, to share where that one may not be."""

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.log_options import options_of
from recsys.commands.output import AsJson, Quiet, print_json, say, tell
from recsys.datasets.reading.options import ReadOptions
from recsys.errors import ConfigError

SUFFIXES = (".csv", ".parquet")


@options_of(ReadOptions)
def imitate(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG", help="A log file, a folder of Parquet parts, or a name from `recsys datasets`."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File to write, .csv or .parquet, or to replace.", show_default=False
        ),
    ],
    users: Annotated[int | None, typer.Option(help="Users to make; else as many as LOG has.")] = None,
    clusters: Annotated[
        int | None, typer.Option(help="Clusters of users, at most; else one for every 40 users, 2 to 32.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides everything.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Make a log with the statistics of another and none of its users, to share where that one may not be."""
    from recsys.datasets.synthetic.imitation import like
    from recsys.files import replacing

    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {out}: the name says no format; end it with .csv or .parquet")
    if out.expanduser().is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file")
    source = Path(log).expanduser()
    if out.expanduser().exists() and source.exists() and out.expanduser().samefile(source):
        raise ConfigError(f"--out {out}: is the log itself; name another file")
    made = like(log, users=users, clusters=clusters, seed=seed, notify=say, **options)
    content = io.BytesIO()
    if out.suffix.lower() == ".csv":
        made.write_csv(content)
    else:
        made.write_parquet(content, compression="zstd")
    with replacing(out.expanduser()) as temporary:
        temporary.write_bytes(content.getvalue())
    counts = {name: made[f"{name[:-1]}_id"].n_unique() for name in ("users", "items")}
    if as_json:
        print_json({"path": str(out), "events": made.height, **counts, "seed": seed})
    else:
        tell(f"{out}: {made.height:,} events, {counts['users']:,} users, {counts['items']:,} items")
