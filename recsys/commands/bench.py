"""`recsys bench`: what the kernels compile to, and programs that time what we claim."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.output import AsJson, Device, print_json, say
from recsys.errors import ConfigError, DataError, MissingDependencyError

bench = typer.Typer(
    name="bench",
    help="Time kernels, training and retrieval; compile every kernel; train and test recipes.",
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option(help="Write the JSON to this file too.")]

OUT_OF_DATE = "make it anew with: recsys bench kernels --compile-only --write"


@bench.command()
def kernels(
    compile_only: Annotated[
        bool, typer.Option("--compile-only", help="Compile for sm_80, sm_90 and sm_100; time nothing.")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="With --compile-only: write the table.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="With --compile-only: fail on a spill, or if this table is out of date."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="With --compile-only: compile also what the table proves unchanged.")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="With --compile-only: how many compile at a time.", min=1)
    ] = 2,
    device: Device = "auto",
    only: Annotated[str | None, typer.Option(help="Operations to time, separated by commas.")] = None,
    seconds: Annotated[
        float, typer.Option(help="Budget of time for all comparisons together.", min=1)
    ] = 150.0,
    events: Annotated[int, typer.Option(help="Events of a batch.", min=1000)] = 40_000,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots (CUDA).")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Time each kernel against its rivals, both sides in turn; or only compile them all."""
    if compile_only:
        _compile_only(write=write, check=check, whole=whole, processes=processes, as_json=as_json)
        return
    if write or check or whole:
        raise ConfigError("--write, --check and --all go with --compile-only")
    from recsys.benchmarks import kernels as program

    _report(program.run(device=device, only=only, seconds=seconds, events=events, plots=plots), out, as_json)


@bench.command()
def train(
    data: Annotated[
        Path | None, typer.Option(help="Prepared folder; a made log of ML-1M's shape if left out.")
    ] = None,
    device: Device = "auto",
    epochs: Annotated[int, typer.Option(help="Timed epochs of each encoder.", min=1)] = 3,
    users: Annotated[int, typer.Option(help="Users of the made log.", min=10)] = 100,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Time training of the three encoders."""
    from recsys.benchmarks import training
    from recsys.datasets.prepared.store import SequenceStore

    store = None if data is None else SequenceStore.open(data)
    _report(training.run(device=device, epochs=epochs, users=users, store=store), out, as_json)


@bench.command()
def retrieval(
    items: Annotated[str, typer.Option(help="Catalog sizes, separated by commas.")] = "10000,100000",
    seconds: Annotated[float, typer.Option(help="Budget of time for each comparison.", min=0.1)] = 5.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Time the kinds of item index against each other."""
    try:
        sizes = [int(size) for size in items.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 100:
        raise ConfigError(f"--items {items!r}: write sizes of 100 or more as 10000,100000")
    from recsys.benchmarks.retrieval import kinds

    _report(kinds.run(sizes=sizes, seconds=seconds), out, as_json)


@bench.command()
def accuracy(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE]...",
            help="dataset, dataset/recipe, or a recipe's TOML file; what is to be run.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of the runs; what it holds is gone on with.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The log, or a folder with NAME/interactions.parquet of each dataset."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Only these of the recipes' seeds, with commas.")] = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option(help="Kernels, as in `recsys train`.")] = "auto",
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the records; the checkout's if left out, or results/accuracy here."),
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Write the tables of benchmarks/README.md from the records.")
    ] = False,
    readme: Annotated[bool, typer.Option("--readme", help="Write the table of README.md, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train and test recipes, resuming, one record each; with neither RECIPE nor --tables list them all."""
    from recsys.benchmarks import accuracy as program

    folder = results or program.RESULTS
    records = []
    if readme and program.README is None:
        raise ConfigError("--readme writes the README of a checkout, and this is an installed package")
    if recipes:
        if runs is None:
            raise ConfigError("--runs FOLDER is needed: where checkpoints, weights and ranks go")
        records = program.run(
            recipes,
            data=data,
            runs=runs,
            results=folder,
            seeds=None if seeds is None else _seeds(seeds),
            device=device,
            backend=backend,
            say=say,
        )
    elif runs or data or seeds:
        raise ConfigError("--runs, --data and --seeds go with recipes: name a dataset, or dataset/recipe")
    if tables or readme:
        program.write_all_tables(folder, readme=program.README if readme else None)
        say(f"Written: {program.TABLES}")
    if not recipes and not (tables or readme):
        print("\n".join(program.status_lines(folder)))
    elif as_json:
        print_json({"records": records})
    elif records:
        print("\n".join(program.record_line(record) for record in records))


@bench.command()
def search(
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="[SPACE]", help="Name of a search space, or its TOML file.", show_default=False
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="How many there are to be in all.", min=1)] = 20,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of the runs; what it holds is gone on with.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The log, or a folder with NAME/interactions.parquet of each dataset."),
    ] = None,
    device: Device = "auto",
    backend: Annotated[str, typer.Option(help="Kernels, as in `recsys train`.")] = "auto",
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the records; the checkout's if left out, or results/search here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a recipe's settings by validation, resuming; without SPACE show what was found so far."""
    from recsys.benchmarks.accuracy import search as program

    folder = results or program.RESULTS
    if space is None:
        for record in program.read_searches(folder):
            print(f"{record['search']}, from {record['recipe']}:\n\n{program.search_table(record)}")
        return
    if runs is None:
        raise ConfigError("--runs FOLDER is needed: where checkpoints, weights and the study go")
    record = program.search(
        program.read_space(space),
        trials,
        data=data,
        runs=runs,
        results=folder,
        device=device,
        backend=backend,
        say=say,
    )
    if as_json:
        print_json(record)
    else:
        print(program.search_table(record))


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text!r}: write whole numbers as 0,1,2") from None


def _report(result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from recsys.benchmarks.report import lines
    from recsys.files import write_json

    if out is not None:
        write_json(out, result)
        say(f"Written: {out}")
    if as_json:
        print_json(result)
    else:
        print("\n".join(lines(result)))


def _compile_only(
    *, write: Path | None, check: Path | None, whole: bool, processes: int, as_json: bool
) -> None:
    if write and check:
        raise ConfigError("pass either --write PATH or --check PATH")
    from recsys.kernels.shared.launching import interpreting

    if interpreting():
        _without_interpreter()
    try:
        from recsys.kernels.shared.launching import checking
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed: pip install 'recsys-engine[gpu]'"
        ) from None
    known = _read(check) if check else _read(write) if write and write.exists() else None
    try:
        if check:
            assert known is not None
            outcome = checking.check_table(known, processes=processes, progress=_progress, whole=whole)
        else:
            outcome = checking.make_rows(known, processes=processes, progress=_progress, whole=whole)
    except ValueError as error:
        raise DataError(f"{check or write}: {error}") from None
    _print_outcome(outcome, check, write, as_json)
    if outcome.problems:
        raise typer.Exit(1)


def _print_outcome(outcome: Any, check: Path | None, write: Path | None, as_json: bool) -> None:
    from recsys.files import write_text
    from recsys.kernels.shared.launching.checking import triton_version
    from recsys.kernels.shared.launching.table import write_table

    if write and not outcome.problems:
        write_text(write, write_table(triton_version(), outcome.rows))
    for problem in outcome.problems:
        say(problem)
    summary = _summary(outcome.rows)
    if as_json:
        facts = {"triton": triton_version(), "rows": len(outcome.rows), "compiled": outcome.compiled}
        print_json({**facts, "kernels": summary, "problems": list(outcome.problems)})
    else:
        for name, facts in summary.items():
            print(
                f"{name:42} {facts['launches']:4} launches, registers {facts['registers'][0]} to "
                f"{facts['registers'][1]}, spills {facts['spills']}, shared up to {facts['shared']:,} bytes"
            )
        print(f"{len(outcome.rows)} rows, {outcome.compiled} compiled now, Triton {triton_version()}")
    if outcome.problems and check:
        print(
            f"{check}: {len(outcome.problems)} problems; if intended, {OUT_OF_DATE} {check}", file=sys.stderr
        )
    elif outcome.problems and write:
        say(f"{write}: not written")


def _summary(rows: Any) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(f"{row.key.operation} {row.key.kernel}", []).append(row)
    return {
        name: {
            "launches": len(group),
            "registers": [min(row.registers for row in group), max(row.registers for row in group)],
            "spills": max(row.spills for row in group),
            "shared": max(row.shared for row in group),
        }
        for name, group in groups.items()
    }


def _without_interpreter() -> None:
    """Leave the work to a process in which kernels are compiled: theirs are the interpreter's here."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = "from recsys.commands.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.argv[1:]],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    raise typer.Exit(done.returncode)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table of compiled kernels ({error})") from None


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty() or done % 25 == 0 or done == total:
        print(f"{what} {done} of {total}", file=sys.stderr, end="\r" if sys.stderr.isatty() else "\n")
