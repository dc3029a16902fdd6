"""Commands of the item index: `recsys index` and `recsys score`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.command_output import AsJson, Run, console, print_json, read_ids, say
from recsys.errors import ConfigError, DataError

if TYPE_CHECKING:
    pass


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("index")(index)
    app.command("score")(score)


def index(
    run: Run,
    kind: Annotated[
        str,
        typer.Option(
            help="auto (by catalog size), exact, flat, ivf, ivfpq, hnsw; gpu-flat, gpu-ivf, gpu-cagra."
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
    as_json: AsJson = False,
) -> None:
    """Build a run's item index anew."""
    options = _options(settings or [])
    from recsys.decoding import check_decoding
    from recsys.recommender import Recommender
    from recsys.run_folder import RunFolder

    check_decoding(vectors, aggregate)
    # The old index may be the reason for building a new one: it is not opened.
    model = Recommender.load(run, device="cpu", with_index=False)
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
        **built.notes,
        "bytes": _size(folder),
    }
    if as_json:
        print_json(facts)
    else:
        console().print(f"{built.kind} index of {built.n_items:,} items: {built.reason}")


def score(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the Parquet parts.", show_default=False)],
    users: Annotated[
        str, typer.Option(help="all, or a file of user ids: Parquet with a column user_id, or one a line.")
    ] = "all",
    k: Annotated[int, typer.Option(help="Answers per user.")] = 10,
    part_users: Annotated[int, typer.Option(help="Users per part.")] = 100_000,
    allow: Annotated[Path | None, typer.Option(help="File of item ids, one a line: only these.")] = None,
    deny: Annotated[Path | None, typer.Option(help="File of item ids, one a line: none of these.")] = None,
    include_seen: Annotated[bool, typer.Option(help="Let items of the history be answered.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace parts of another scoring.")] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend for many users of the log into Parquet parts; called again, it goes on where it stopped."""
    from recsys.recommender import Recommender

    model: Recommender = Recommender.load(run, device=device)
    report = model.score(
        out,
        None if users == "all" else _read_users(Path(users)),
        k=k,
        exclude_seen=not include_seen,
        allow=read_ids(allow),
        deny=read_ids(deny),
        part_users=part_users,
        overwrite=overwrite,
        progress=True,
    )
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
        console().print(
            f"{out}: {report.rows:,} rows for {report.users:,} users in {len(report.parts)} parts"
        )


def _options(settings: list[str]) -> Mapping[str, object]:
    options: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as key=value, e.g. ef_search=200")
        options[key.strip().removeprefix("index.")] = value.strip()
    return options


def _read_users(path: Path) -> list[Any]:
    if path.suffix != ".parquet":
        return read_ids(path) or []
    import polars as pl

    try:
        return pl.read_parquet(path, columns=["user_id"])["user_id"].to_list()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as Parquet with a column user_id ({error})") from None


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
