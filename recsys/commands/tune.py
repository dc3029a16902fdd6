"""`recsys tune`: settings for one's own log."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.commands.output import AsJson, Backend, Device, print_json, say, tell


def tune(
    data: Annotated[
        str, typer.Argument(metavar="LOG", help="A known name, a log file, or a prepared folder.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the search; what it holds is gone on with.", show_default=False)
    ],
    trials: Annotated[int, typer.Option(help="How many there are to be in all.", min=1)] = 20,
    encoder: Annotated[str, typer.Option(help="sasrec, bert4rec or mamba.")] = "sasrec",
    preset: Annotated[str, typer.Option(help="tuned or paper: where the search starts.")] = "tuned",
    space: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with [encoder] and [training]: for each setting a list of values, or { low = , "
            "high = , log = }."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value of what is not searched.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(metavar="METRIC@K", help="Validation metric to compare by; else ndcg@10.")
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search settings on a log by validation; a search that was stopped goes on."""
    from recsys.config import apply_settings
    from recsys.console.text import table
    from recsys.tuning.tune import BEST, tune_table
    from recsys.tuning.tune import tune as search

    sections: dict[str, dict[str, object]] = {"encoder": {}, "training": {}}
    apply_settings(sections, settings or [])
    if select is not None:
        sections["training"]["select"] = select
    record = search(
        data,
        out,
        trials,
        encoder=encoder,
        preset=preset,
        encoder_options=sections["encoder"],
        training_options=sections["training"],
        space=space,
        seed=seed,
        device=device,
        backend=backend,
        say=say,
    )
    say(f"Written: {out / BEST}; train with it by `recsys train {data} --config {out / BEST} --out RUN`")
    if as_json:
        print_json(record)
        return
    tell(table(*tune_table(record)))
