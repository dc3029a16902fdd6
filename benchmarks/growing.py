"""What it is worth to go on from a run where a log has grown: validation figures by epoch, beside a new run.

    python -m recsys.benchmarks.growing --runs FOLDER --seeds 0 1 2 --set training.learning_rate=0.01 \
      --set training.schedule=linear --out benchmarks/results/growing.json

The log is cut at a share of its time. A parent is trained on the events before; on the whole log a run goes
on from it for a tenth of the epochs that a run from scratch takes until it stops by itself. Both are
validated on the same events: none of them is in the parent's training, since each user's last two events are
left out of either. It goes on by the parent's settings ("same"), by those of `--set` ("changed"), and by
these with new items that start from random vectors, not from the items beside them ("random").

Runs that FOLDER holds are not trained again, and a record that is there keeps its other cuts and seeds.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys import Recommender, prepare
from recsys.benchmarks.machine import stamp
from recsys.config import apply_settings, build, to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary, user_vocabulary
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder
from recsys.errors import RecsysError
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.files import read_json, write_json
from recsys.run_folder import RunFolder
from recsys.run_folder.parents import Succession, epochs_of, read_parent
from recsys.training.config import TrainingConfig
from recsys.training.history import read_history
from recsys.training.trainer import Trainer

METRIC = "ndcg@10"
TENTH = 10
"""Full budgets over the budget of the run that goes on."""


def whole_log(log: str, folder: Path) -> SequenceStore:
    """The log, prepared once."""
    return SequenceStore.open(folder) if folder.is_dir() else prepare(log, folder)


def before(whole: SequenceStore, cut: float, folder: Path) -> SequenceStore:
    """The events up to the time by which a share of all has happened, prepared like a log of their own."""
    import polars as pl

    if folder.is_dir():
        return SequenceStore.open(folder)
    assert whole.timestamps is not None
    users = np.repeat(np.arange(whole.n_users), np.diff(whole.offsets))
    times = np.asarray(whole.timestamps)
    events = pl.DataFrame(
        {
            "user_id": user_vocabulary(whole).decode(users),
            "item_id": item_vocabulary(whole).decode(whole.items),
            "timestamp": times,
        }
    )
    return prepare(events.filter(times <= np.quantile(times, cut)), folder)


def trained(out: Path, store: SequenceStore, seed: int) -> list[float]:
    """The validation figure of each epoch of a tuned run, which is trained if it is not there."""
    if not RunFolder(out).manifest.exists():
        Recommender("sasrec", seed=seed, device="cpu").fit(store, out=out, resume=_begun(out))
    return [float(record["valid"][METRIC]) for record in read_history(RunFolder(out).metrics)]


def gone_on(
    run: Path, whole: SequenceStore, epochs: int, changed: Mapping[str, Any], *, neighbours: bool
) -> dict[str, list[float]]:
    """Let a run go on with the whole log, as `fit(from_run=)` does.

    Returns:
        The figure of each epoch over all users, and over those whose validation event has a new item.
    """
    parent = read_parent(run)
    succession = Succession.of(parent, whole, whole.name)
    config: TrainingConfig = dataclasses.replace(parent.settings.training, epochs=epochs, **changed)
    known = succession.places.known
    found: dict[str, list[float]] = {"all": [], "new": []}

    def validate(encoder: SequenceEncoder) -> Mapping[str, float]:
        result = evaluate_hidden(
            hidden_function(encoder, whole),
            encoder.item_vectors(),
            whole,
            bias_fn=bias_function(encoder, whole),
            split="valid",
            ks=(10,),
            progress=False,
            lists=False,
            resamples=0,
        )
        of_new = ~known[whole.items[whole.valid_start[result.user]]]
        found["all"].append(float(result[METRIC]))
        found["new"].append(float(result.per_user[METRIC][of_new].mean()) if of_new.any() else 0.0)
        return result.metrics

    encoder = build_encoder(
        parent.settings.name, whole.n_items, parent.settings.encoder, seed=parent.settings.training.seed
    )
    trainer = Trainer(encoder, whole, config, validate=validate, epochs_before=epochs_of(succession.record))
    succession.hand_over(trainer, None if neighbours else [])
    trainer.run()
    return found


def compare(folder: Path, log: str, cut: float, seed: int, changed: Mapping[str, Any]) -> dict[str, Any]:
    """One cut and one seed."""
    whole = whole_log(log, folder / "whole")
    early = before(whole, cut, folder / f"before-{cut}")
    run = folder / f"seed{seed}" / f"parent-{cut}"
    scratch = trained(folder / f"seed{seed}" / "scratch", whole, seed)
    parent = trained(run, early, seed)
    epochs = max(1, len(scratch) // TENTH)
    sides = {
        "same": gone_on(run, whole, epochs, {}, neighbours=True),
        "changed": gone_on(run, whole, epochs, changed, neighbours=True),
        "random": gone_on(run, whole, epochs, changed, neighbours=False),
    }
    record = Succession.of(read_parent(run), whole, log).record
    new = item_vocabulary(early).encode(item_vocabulary(whole).ids) < 0
    return {
        "cut": cut,
        "seed": seed,
        "items": record["items"],
        "users": record["users"],
        "targets_new": int(new[whole.items[whole.valid_start]].sum()),
        "scratch": {"epochs": len(scratch), "best": max(scratch), "tenth": max(scratch[:epochs])},
        "parent": {"epochs": len(parent), "best": max(parent)},
        "goes_on": {
            "epochs": epochs,
            **{
                name: {"best": max(side["all"]), "by_epoch": side["all"], "new_by_epoch": side["new"]}
                for name, side in sides.items()
            },
        },
    }


def _begun(out: Path) -> bool:
    return (RunFolder(out).checkpoint / "state.json").exists()


def run(
    folder: Path,
    log: str,
    cuts: Sequence[float],
    seeds: Sequence[int],
    changed: Mapping[str, Any],
    out: Path | None = None,
) -> dict[str, Any]:
    """All cuts and seeds; the record is written after each."""
    kept = read_json(out)["runs"] if out is not None and out.exists() else []
    result: dict[str, Any] = {**stamp(), "log": log, "changed": dict(changed), "runs": kept}
    for cut in cuts:
        for seed in seeds:
            entry = compare(folder, log, cut, seed, changed)
            others = [each for each in result["runs"] if (each["cut"], each["seed"]) != (cut, seed)]
            result["runs"] = sorted([*others, entry], key=lambda each: (each["cut"], each["seed"]))
            if out is not None:
                write_json(out, result)
            on, scratch = entry["goes_on"], entry["scratch"]
            print(
                f"cut {cut:g}, seed {seed}: from scratch {scratch['best']:.4f} in {scratch['epochs']} epochs"
                f", {scratch['tenth']:.4f} in {on['epochs']}; goes on for {on['epochs']}: "
                + ", ".join(f"{name} {on[name]['best']:.4f}" for name in ("same", "changed", "random")),
                flush=True,
            )
    return result


def main() -> int:
    """Run, print, write; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--log", default="ml-100k", help="a known log (default: %(default)s)")
    parser.add_argument("--cut", type=float, nargs="+", default=[0.8], help="share of events before the cut")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], help="training.KEY=VALUE of what goes on")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        sections: dict[str, dict[str, Any]] = {"training": {}}
        apply_settings(sections, options.set)
        read = to_dict(build(TrainingConfig, sections["training"], where="training"))
        changed = {name: read[name] for name in sections["training"]}
        run(options.runs, options.log, options.cut, options.seeds, changed, options.out)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
