"""`recsys evaluate`: every item ranked, for a run or for a baseline on its data."""

from typing import Annotated

import typer

from recsys.commands.output import AsJson, Backend, Device, Quiet, Run, print_result, read_cutoffs
from recsys.errors import ConfigError


def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(metavar="test|valid", help="Events that are ranked.")] = "test",
    k: Annotated[str, typer.Option(help="Cut-offs, separated by commas.")] = "1,5,10,20",
    protocol: Annotated[
        str, typer.Option(metavar="default|recbole|rectools|sasrec|gsasrec|s3rec", help="Measure as they do.")
    ] = "default",
    vectors: Annotated[
        str,
        typer.Option(metavar="embedding|latent|mixed", help="What stands for the items; see `recsys index`."),
    ] = "embedding",
    aggregate: Annotated[str, typer.Option(metavar="global|local", help="Of latent vectors.")] = "global",
    tie_orders: Annotated[
        int, typer.Option(help="Average over so many drawn orders of events with equal times.", min=0)
    ] = 0,
    unbiased: Annotated[
        float | None,
        typer.Option(
            metavar="POWER", help="Show figures weighted by training events^-POWER, too: above 0, at most 4."
        ),
    ] = None,
    floor: Annotated[
        str | None,
        typer.Option(
            help="item-knn, ease, popularity or near-hour: rank by it in the model's place, on its data."
        ),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Show figures by history length, popularity and hour, too.")
    ] = False,
    lists: Annotated[
        bool,
        typer.Option(
            "--lists", help="Show what the lists look like, too: novelty, exposure, diversity, calibration."
        ),
    ] = False,
    device: Device = "auto",
    backend: Backend = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rank every catalog item for every user of a split, and print the protocol with the figures."""
    ks = read_cutoffs(k)
    if floor is not None:
        if (vectors, aggregate) != ("embedding", "global"):
            raise ConfigError("--floor ranks without a model: leave out --vectors and --aggregate")
        if unbiased is not None:
            raise ConfigError("--floor has plain figures alone: leave out --unbiased")
        from recsys.baselines.evaluating import evaluate_baseline
        from recsys.baselines.registry import baseline_configs
        from recsys.datasets.prepared.store import SequenceStore
        from recsys.run_folder import RunFolder

        (config,) = baseline_configs(floor, {})
        result = evaluate_baseline(
            SequenceStore.open(RunFolder(run).data),
            config,
            split=split,  # type: ignore[arg-type]
            protocol=protocol,
            ks=ks,
            progress=not quiet,
            tie_orders=tie_orders,
            lists=lists,
        )
        print_result(result, as_json, result.to_json(), slices=slices, lists=lists)
        return
    from recsys.recommender import Recommender

    model = Recommender.load(run, device=device, backend=backend)
    result = model.evaluate(
        split=split,
        protocol=protocol,
        ks=ks,
        progress=not quiet,
        vectors=vectors,  # type: ignore[arg-type]
        aggregate=aggregate,  # type: ignore[arg-type]
        tie_orders=tie_orders,
        unbiased=unbiased,
    )
    report = result.to_json()
    if vectors != "embedding":
        report |= {"vectors": vectors, "aggregate": aggregate}
    print_result(result, as_json, report, slices=slices, lists=lists)
