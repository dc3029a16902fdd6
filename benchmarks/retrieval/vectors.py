"""Latent against embedding vectors: what stands for the items, for trained encoders.

    python -m recsys.benchmarks.retrieval.vectors RUN [RUN ...]

Takes finished runs and evaluates each on its test split with the tied embedding, global and local latent
vectors and the mixture, everything else chosen on the validation events. Reports NDCG@10, seen items removed
as a request removes them, with bootstrap intervals, the same with seen items kept, the difference to the
embedding user by user, the bytes of the index and the time to build it (processor seconds). A run's record
takes the place of its earlier one.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys import load
from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import commit
from recsys.benchmarks.retrieval.measuring import record
from recsys.evaluation.protocol import get_protocol
from recsys.run_folder import RunFolder

ENCODERS: tuple[str, ...] = ("sasrec", "bert4rec", "mamba")
RULES = replace(get_protocol("default"), seen="removed")
CHOICES = (("embedding", "global"), ("latent", "global"), ("latent", "local"), ("mixed", "global"))


def compare(run: Path) -> dict[str, Any]:
    """Evaluate a run under every choice of vectors, the embedding first."""
    model = load(run, device="cpu")
    rows, base = [], None
    for vectors, aggregate in CHOICES:
        began = time.process_time()
        model.build_index(None, vectors=vectors, aggregate=aggregate)  # type: ignore[arg-type]
        built = time.process_time() - began
        began = time.process_time()
        result = model.evaluate(vectors=vectors, aggregate=aggregate, protocol=RULES)  # type: ignore[arg-type]
        evaluated = time.process_time() - began
        per_user = result.per_user["ndcg@10"]
        if base is None:
            base = per_user
        row = {
            "vectors": vectors,
            "aggregate": aggregate,
            **model.index_.notes,
            "ndcg@10": result.metrics["ndcg@10"],
            "ndcg@10_interval": result.confidence["ndcg@10"],
            "hr@10": result.metrics["hr@10"],
            "ndcg@10_seen_kept": result.metrics_seen_kept["ndcg@10"],
            "difference": _difference(per_user - base),
            "build_seconds": built,
            "evaluate_seconds": evaluated,
            "bytes": _bytes(model),
        }
        rows.append(row)
        low, high = row["difference"]["interval"]
        print(
            f"{result.dataset} {model.encoder:8} {vectors:9} {aggregate:6} NDCG@10 {row['ndcg@10']:.4f} "
            f"({row['difference']['mean']:+.4f}, {low:+.4f} to {high:+.4f})  {row['bytes'] / 1e6:.1f} MB  "
            f"{built:.1f} s",
            flush=True,
        )
    return {
        "encoder": model.encoder,
        "dataset": model.store_.name,
        "most_epochs": model.training_.epochs,
        "epochs": len({json.loads(line)["epoch"] for line in RunFolder(run).metrics.open()}),
        "commit": commit(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "rows": rows,
    }


def _difference(each: Any) -> dict[str, Any]:
    """Mean difference per user with a 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    means = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(1000)]
    return {"mean": float(each.mean()), "interval": [float(q) for q in np.quantile(means, [0.025, 0.975])]}


def _bytes(model: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        model.save_index(path)
        return sum(file.stat().st_size for file in path.iterdir())


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    path = options.out or RESULTS / "retrieval-vectors.json"
    for run in options.runs:
        made = compare(run)
        others = json.loads(path.read_text())["runs"] if path.exists() else []
        kept = [o for o in others if (o["dataset"], o["encoder"]) != (made["dataset"], made["encoder"])]
        runs = sorted([*kept, made], key=lambda o: (o["dataset"], ENCODERS.index(o["encoder"])))
        record("retrieval-vectors", "python -m recsys.benchmarks.retrieval.vectors", {"runs": runs}, path)


if __name__ == "__main__":
    main()
