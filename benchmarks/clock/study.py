"""Is the clock of use on a real log? Encoders x {no clock, clock, hour vectors, ...} x seeds (`cells.py`).

    python -m recsys.benchmarks.clock.study LOG --time-zone America/New_York --runs FOLDER

Temporal split; up to ten test events of each user, each asked at its own time, all items ranked. A run leaves
one JSON record in FOLDER and is skipped when that is there, so the program goes on where it was cut off. All
cells of seed 0 come first. Then, or with --report alone, the table, its tests over users and the picture of
NDCG by hour are made from the records that are there.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.benchmarks.clock.cells import ENCODER, ENCODERS, VARIANTS, cells, training
from recsys.benchmarks.clock.requests import Requests, by_user, draw_requests, gains, rank_requests
from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import stamp
from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.files import write_json, write_text

BEGIN, END = "<!-- table:clock-study -->", "<!-- /table:clock-study -->"


def run_cell(
    store: SequenceStore, requests: Requests, encoder: str, variant: str, seed: int, epochs: int
) -> dict[str, Any]:
    """Train one cell and rank every request."""
    from recsys import Recommender

    began = time.perf_counter()
    model = Recommender(
        encoder,
        encoder_options={**ENCODER, **VARIANTS[variant]},
        training_options=training(epochs),
        seed=seed,
        device="cpu",
    ).fit(store)
    trained = time.perf_counter() - began
    ranks = rank_requests(model.encoder_, store, requests)
    validated = [r for r in model.history_ if "valid" in r]
    best = max(validated, key=lambda r: r["valid"]["ndcg@10"])
    return {
        "encoder": encoder,
        "variant": variant,
        "seed": seed,
        **stamp(),
        "log": store.fingerprint,
        "requests": requests.digest,
        "encoder_config": to_dict(model.encoder_.config),
        "training_config": to_dict(model.training_),
        "epochs": len(model.history_),
        "best_epoch": best["epoch"],
        "valid_ndcg@10": best["valid"]["ndcg@10"],
        "training_seconds": trained,
        "ndcg@10": float(by_user(gains(ranks), requests).mean()),
        "first_event": model.evaluate().metrics,
        "ranks": ranks,
    }


def open_log(log: Path, runs: Path, time_zone: str) -> SequenceStore:
    """The log prepared once, split at two moments."""
    from recsys import prepare

    return prepare(log, runs / "data", split="temporal", time_zone=time_zone)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.clock.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", type=Path, help="interactions with times finer than a day")
    parser.add_argument("--time-zone", required=True, help="as of `recsys prepare`")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the records")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="with commas between")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="with commas between")
    parser.add_argument("--seeds", type=int, default=3, help="number of them (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="most of a run (default: %(default)s)")
    parser.add_argument("--per-user", type=int, default=10, help="most requests (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "clock-study.json", help="summary to write")
    parser.add_argument("--docs", type=Path, help="Markdown file whose table is replaced")
    options = parser.parse_args(arguments)
    store = open_log(options.log, options.runs, options.time_zone)
    requests = draw_requests(store, options.per_user)
    wanted = cells(tuple(options.encoders.split(",")), tuple(options.variants.split(",")))
    for seed in range(0 if options.report else options.seeds):
        for encoder, variant in wanted:
            path = options.runs / f"{encoder}-{variant}-{seed}.json"
            if path.exists():
                continue
            record = run_cell(store, requests, encoder, variant, seed, options.epochs)
            write_json(path, record)
            print(
                f"{path.stem}: NDCG@10 {record['ndcg@10']:.4f}, best epoch {record['best_epoch']} of "
                f"{record['epochs']}, {record['training_seconds']:.0f} s",
                flush=True,
            )
    from recsys.benchmarks.clock.report import report

    text = report(store, requests, options.runs, options.out)
    if options.docs is not None:
        before, _, rest = options.docs.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        write_text(options.docs, f"{before}{BEGIN}\n{text}{END}{after}")
    print(text, end="")


if __name__ == "__main__":
    main()
