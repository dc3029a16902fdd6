"""The command line: thin over the library.

Results go to standard output (one JSON object with ``--json``), everything else to standard error.
Exit codes: 0 done, 2 something the user can mend, 130 interrupted.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import __version__, clock_commands, retrieval_commands
from recsys.bench_commands import bench
from recsys.command_output import (
    AsJson,
    Backend,
    Categories,
    Interests,
    Run,
    console,
    print_json,
    read_ids,
    say,
)
from recsys.errors import ConfigError, RecsysError, RunError

if TYPE_CHECKING:
    from recsys.evaluation.result import EvaluationResult

app = typer.Typer(
    name="recsys",
    help="Sequential recommendation: train an encoder on an interaction log, ask what comes next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

retrieval_commands.register(app)
clock_commands.register(app)
app.add_typer(bench)


def main() -> None:
    """Run the command line; user errors become one line and exit code 2."""
    warnings.showwarning = _show_warning
    # Threads that spin while they wait starve each other where another process keeps a core busy: training
    # then ran at a twentieth of its speed. Read when torch is loaded, so it has to be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("Interrupted; a training run goes on with --resume.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output left, as `| head` does.
        sys.stderr.close()
        raise SystemExit(0) from None


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Print the version if asked."""
    if show:
        print(f"recsys {__version__}")
        raise typer.Exit


@app.command("datasets")
def list_datasets(as_json: AsJson = False) -> None:
    """List the logs known by name: what they are, where they come from, what is here."""
    from recsys.datasets.known import list_known

    known = list_known()
    if as_json:
        print_json({"datasets": [_known_as_json(dataset) for dataset in known]})
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("name", "users", "items", "events", "here", "licence"):
        table.add_column(column)
    for d in known:
        here = "yes" if d.cached else "no"
        table.add_row(d.name, f"{d.users:,}", f"{d.items:,}", f"{d.rows:,}", here, d.licence)
    console().print(table)


@app.command()
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
    from recsys.datasets.prepare import prepare as prepare_log

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
        console().print(_describe_store(store))


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A known name, a log file, or a prepared folder.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    encoder: Annotated[str, typer.Option(help="sasrec, bert4rec or mamba.")] = "sasrec",
    preset: Annotated[str, typer.Option(help="tuned or paper.")] = "tuned",
    clock: Annotated[
        bool, typer.Option("--clock", help="Add the interest clock; DATA needs a --time-zone.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with [encoder] and [training].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, e.g. training.epochs=20.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Backend = "auto",
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    index: Annotated[
        str, typer.Option(help="Item index to build: auto, or as `recsys index --kind`.")
    ] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder, test it, draw its curves and build its item index."""
    from recsys.config import apply_settings, read_toml

    sections = read_toml(config) if config else {"encoder": {}, "training": {}}
    apply_settings(sections, settings or [])
    if seed is not None:
        sections["training"]["seed"] = seed
    _check_run_folder(out, resume=resume, overwrite=overwrite)

    from recsys.recommender import Recommender
    from recsys.run_folder import RunFolder

    model = Recommender(
        encoder,
        preset=preset,
        clock=clock,
        encoder_options=sections["encoder"],
        training_options=sections["training"],
        device=device,
        index=index,
        backend=backend,
    )
    source: Any = Path(data) if Path(data).exists() else data
    model.fit(source, out=out, resume=resume, quiet=False, notify=say)
    run = RunFolder(out)
    result = model.evaluate(progress=True)
    report = {**result.to_json(), "epochs": len(model.history_), "index": model.index_.kind}
    _write_report(run, report)
    model.build_index()
    model.save_index(run.index)
    say(f"Index: {model.index_.reason}")
    say(f"Written: {out} (weights, report.json, plots/training.png, index/)")
    _print_result(result, as_json, report)


@app.command()
def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs, separated by commas.")] = "1,5,10,20",
    protocol: Annotated[
        str, typer.Option(help="default, recbole, rectools, sasrec or gsasrec: measure as they do.")
    ] = "default",
    vectors: Annotated[
        str, typer.Option(help="embedding, latent or mixed: what stands for the items; see `recsys index`.")
    ] = "embedding",
    aggregate: Annotated[str, typer.Option(help="global or local, of latent vectors.")] = "global",
    tie_orders: Annotated[
        int, typer.Option(help="Average over so many drawn orders of events with equal times.", min=0)
    ] = 0,
    floor: Annotated[
        str | None,
        typer.Option(
            help="item-knn, ease or popularity: rank by it in the model's place, on the run's data."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Rank every catalog item for every user of a split, and print the protocol with the figures."""
    ks = _cutoffs(k)
    if floor is not None:
        if (vectors, aggregate) != ("embedding", "global"):
            raise ConfigError("--floor ranks without a model: leave out --vectors and --aggregate")
        from recsys.datasets.store import SequenceStore
        from recsys.floors import evaluate_floor, floor_configs
        from recsys.run_folder import RunFolder

        (config,) = floor_configs(floor, {})
        result = evaluate_floor(
            SequenceStore.open(RunFolder(run).data),
            config,
            split=split,  # type: ignore[arg-type]
            protocol=protocol,
            ks=ks,
            progress=True,
            tie_orders=tie_orders,
        )
        _print_result(result, as_json, result.to_json())
        return
    from recsys.recommender import Recommender

    model = Recommender.load(run, device=device, backend=backend)
    result = model.evaluate(
        split=split,
        protocol=protocol,
        ks=ks,
        progress=True,
        vectors=vectors,  # type: ignore[arg-type]
        aggregate=aggregate,  # type: ignore[arg-type]
        tie_orders=tie_orders,
    )
    report = result.to_json()
    if vectors != "embedding":
        report |= {"vectors": vectors, "aggregate": aggregate}
    _print_result(result, as_json, report)


@app.command()
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
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    columns = [c for c in ("rank", "item_id", "score", "title") if c in found.columns]
    for column in columns:
        table.add_column(column, justify="right" if column in ("rank", "score") else "left")
    for row in rows:
        table.add_row(*(f"{row[c]:.3f}" if c == "score" else str(row[c]) for c in columns))
    console().print(table)


def _check_run_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to mix runs; make way for a new one if told to."""
    import shutil

    from recsys.run_folder import RunFolder

    run = RunFolder(out)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; --out names a folder")
    ours = run.manifest.exists() or run.config.exists()
    if out.exists() and any(out.iterdir()) and not ours:
        raise RunError(f"{out}: exists and is not a run; choose an empty --out")
    if ours and overwrite and not resume:
        shutil.rmtree(out)
    elif ours and not resume:
        raise RunError(
            f"{out}: holds a run; go on with --resume, replace it with --overwrite, or choose another --out"
        )


def _write_report(run: Any, report: dict[str, Any]) -> None:
    from recsys.files import write_json

    write_json(run.report, report)


def _print_result(result: "EvaluationResult", as_json: bool, report: dict[str, Any]) -> None:
    if as_json:
        print_json(report)
        return
    terminal = console()
    terminal.print(result.table())
    terminal.print(result.describe_protocol())


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


def _cutoffs(text: str) -> tuple[int, ...]:
    try:
        ks = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--k {text!r}: write cut-offs as 1,5,10,20") from None
    if not ks or min(ks) < 1:
        raise ConfigError(f"--k {text!r}: cut-offs start at 1")
    return ks


def _seconds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--times {text!r}: write unix seconds as 881250949,881250950") from None


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
