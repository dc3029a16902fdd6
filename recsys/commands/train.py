"""`recsys train`: train, test, draw, index."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.failures import afterwards, interruption
from recsys.commands.log_options import Items, TimeZone, chosen, options_of
from recsys.commands.output import AsJson, Backend, Device, Quiet, print_json, print_result, say
from recsys.datasets.preparing.options import OPTIONS
from recsys.errors import ConfigError


@options_of(*OPTIONS)
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A prepared folder, a log file, a folder of Parquet parts, or a known name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    encoder: Annotated[
        str, typer.Option(metavar="sasrec|bert4rec|mamba", help="Or a registered name.")
    ] = "sasrec",
    preset: Annotated[
        str, typer.Option(metavar="tuned|paper", help="The strongest recipe measured, or as published.")
    ] = "tuned",
    clock: Annotated[
        bool, typer.Option("--clock", help="Add the interest clock; DATA needs a --time-zone.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with [encoder] and [training].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, e.g. training.epochs=20.")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC@K",
            help="Validation metric that keeps weights and stops: hr, recall, ndcg or mrr; else ndcg@10.",
        ),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOGGER",
            help="tensorboard:FOLDER, mlflow:EXPERIMENT or wandb:PROJECT; again for another.",
        ),
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    index: Annotated[
        str, typer.Option(help="Item index to build: auto, or as `recsys index --kind`.")
    ] = "auto",
    resume: Annotated[
        bool, typer.Option(help="Go on from the run's checkpoint, by its own settings.")
    ] = False,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Go on from a run with these data: known items keep what they learned, new ones join.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Replace an earlier run when the new one is whole; with --resume, go on with that."
        ),
    ] = False,
    time_zone: TimeZone = None,
    items: Items = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Train an encoder, test it, draw its curves and build its item index."""
    from recsys.config import apply_settings, read_toml
    from recsys.retrieval.backends import check_kind

    sections = read_toml(config) if config else {"encoder": {}, "training": {}}
    apply_settings(sections, settings or [])
    if seed is not None:
        sections["training"]["seed"] = seed
    if select is not None:
        sections["training"]["select"] = select
    loggers: list[Any] = []
    if log_to:
        from recsys.training.loggers import make_logger

        loggers = [make_logger(text) for text in log_to]
    check_kind(index)

    from recsys.files import write_json
    from recsys.recommender import Recommender
    from recsys.run_folder import RunFolder
    from recsys.run_folder.keeping import belonging
    from recsys.run_folder.settings import names_to_go_on_with
    from recsys.training.processes import launched

    if resume or from_run is not None:
        # What was not said is the run's own.
        before = names_to_go_on_with(out, overwrite=overwrite) if resume else None
        if before is None and from_run is not None:
            before = names_to_go_on_with(from_run)
        its_encoder, its_preset = before or (None, None)
        encoder = encoder if _said(context, "encoder") else its_encoder or encoder
        preset = preset if _said(context, "preset") else its_preset or preset
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
    if config is not None:
        _check_file(config, model)
    run, fitted = RunFolder(out), False
    try:
        model.fit(
            data,
            out=out,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            notify=say,
            callbacks=loggers,
            data_options=chosen({**options, "time_zone": time_zone, "items": items}, *OPTIONS),
            from_run=from_run,
        )
        fitted = True
        if launched()[0]:
            return  # process 0 tests and writes
        result = model.evaluate(progress=not quiet) if model.store_.has_tests else None
        with belonging(out, model.encoder_) as digest:
            model.build_index()
            report: dict[str, Any] = {} if result is None else result.to_json()
            report |= {"epochs": len(model.history_), "index": model.index_.kind, "model_sha256": digest}
            write_json(run.report, report)
            model.save_index(run.index)
    except (KeyboardInterrupt, SystemError) as error:
        if interruption(error) is not None:
            afterwards.set(_after_interrupt(run, fitted))
        raise
    say(f"Index: {model.index_.reason}")
    say(f"Written: {out} (weights, report.json, plots/training.png, index/)")
    if result is None:
        if as_json:
            print_json(report)
        return
    print_result(result, as_json, report)


def _after_interrupt(run: Any, fitted: bool) -> str:
    """What is there of a training that was interrupted."""
    from recsys.run_folder.layout import State, state_of
    from recsys.run_folder.writing import OVERWRITING, RESUMING, waiting

    if fitted:
        return (
            f"the run is whole; `recsys evaluate {run.path}` tests it, `recsys index {run.path}` indexes it"
        )
    if waiting(run, OVERWRITING) is not None:
        return "the earlier run is as it was; the same command with --resume goes on from the last checkpoint"
    if state_of(run) is State.UNFINISHED or waiting(run, RESUMING) is not None:
        return "the same command with --resume goes on from the last checkpoint"
    return "nothing was written"


def _check_file(path: Path, model: Any) -> None:
    """Find what is wrong with a configuration file before its settings meet anything else.

    Raises:
        ConfigError: the message names the file.
    """
    try:
        model.configs()
    except ConfigError as error:
        raise ConfigError(f"{path} and --set: {error}") from None


def _said(context: typer.Context, option: str) -> bool:
    """Whether an option was given rather than left at its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"
