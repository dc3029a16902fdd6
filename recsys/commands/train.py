"""`recsys train`: train, test, draw, index."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.output import AsJson, Backend, print_result, say
from recsys.errors import RunError


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
    print_result(result, as_json, report)


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
