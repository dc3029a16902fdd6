"""`recsys compare`: two runs on the same users, by a paired test."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.commands.output import AsJson, Backend, Device, print_json, read_cutoffs, tell
from recsys.errors import ArgumentError


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of a run.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Of another.", show_default=False)],
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs, separated by commas.")] = "10",
    protocol: Annotated[
        str, typer.Option(help="default, recbole, rectools, sasrec, gsasrec or s3rec: measure as they do.")
    ] = "default",
    resamples: Annotated[int, typer.Option(help="Resamples of the paired bootstrap.", min=1)] = 10_000,
    slices: Annotated[
        bool, typer.Option("--slices", help="Compare by history length, popularity and hour, too.")
    ] = False,
    device: Device = "auto",
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Rank the same users under two runs of one log, and test whether the runs differ."""
    from recsys.evaluation.comparing import compare as compare_results
    from recsys.recommender import Recommender

    ks = read_cutoffs(k)
    models = [Recommender.load(run, device=device, backend=backend) for run in (run_a, run_b)]
    if models[0].store_.fingerprint != models[1].store_.fingerprint:
        # Before minutes are spent on ranking.
        sizes = [f"{m.store_.name} with {m.store_.n_users:,} users" for m in models]
        raise ArgumentError(
            f"{run_a} and {run_b} hold different data ({sizes[0]}, {sizes[1]}): train both on one prepared "
            "dataset"
        )
    # A run whose seed differs would draw other users under a protocol that samples them.
    seed = models[0].training_.seed
    results: list[Any] = [
        m.evaluate(split=split, protocol=protocol, ks=ks, progress=True, seed=seed) for m in models
    ]
    found = compare_results(*results, names=(str(run_a), str(run_b)), resamples=resamples)
    if as_json:
        print_json(found.to_json())
        return
    tell(found.table())
    if slices:
        tell(found.slice_table())
    tell(results[0].describe_protocol())
