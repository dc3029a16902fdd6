"""Train the three encoders on one log and put their test figures side by side.

    python -m benchmarks.quality --dataset ml-100k --readme README.md

Default preset, one seed, every catalog item ranked; popularity beside. Each encoder's record, with machine,
commit and time, goes into one JSON file under benchmarks/results/ in place of its earlier one (so encoders
may be run one at a time); with --readme the table of all records there replaces the README's.
"""

import argparse
import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, processor
from recsys.files import write_json, write_text

BEGIN, END = "<!-- table:ml-100k -->", "<!-- /table:ml-100k -->"
ORDER = ["sasrec", "bert4rec", "mamba"]
RESULTS = Path(__file__).parent / "results"


def run_encoder(name: str, data: Path, seed: int) -> dict[str, Any]:
    """Train one encoder with its default preset and test it."""
    from recsys import Recommender

    started = time.perf_counter()
    model = Recommender(name, seed=seed).fit(data, quiet=False)
    seconds = time.perf_counter() - started
    rates = sorted(r["events_per_second"] for r in model.history_)
    result = model.evaluate().to_json()
    return {
        "encoder": name,
        "seed": seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "parameters": sum(p.numel() for p in model.encoder_.parameters()),
        "epochs": len(model.history_),
        "training_seconds": seconds,
        "events_per_second_median": rates[len(rates) // 2],
        "result": result,
    }


def table(records: list[dict[str, Any]]) -> str:
    """The README's table, in Markdown."""
    lines = [
        "| encoder | HR@10, seen kept | NDCG@10 | HR@10, seen removed | NDCG@10 | epochs | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        kept, removed = record["result"]["metrics_seen_kept"], record["result"]["metrics_seen_removed"]
        cells = [f"{m[name]:.4f}" for m in (kept, removed) for name in ("hr@10", "ndcg@10")]
        cells += [str(record["epochs"]), f"{record['training_seconds']:.0f} s"]
        lines.append(f"| {record['encoder']} | {' | '.join(cells)} |")
    popularity = records[0]["result"]["popularity"]
    cells = [f"{popularity[s][name]:.4f}" for s in ("kept", "removed") for name in ("hr@10", "ndcg@10")]
    lines.append(f"| popularity | {' | '.join(cells)} | | |")
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    import torch

    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run, write the record, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="ml-100k", help="known name, log file or prepared folder")
    parser.add_argument("--encoders", default="sasrec,bert4rec,mamba")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readme", type=Path, help="file whose table is replaced")
    options = parser.parse_args()

    from recsys import prepare

    with tempfile.TemporaryDirectory() as folder:
        source = Path(options.dataset)
        prepared = source if source.is_dir() else Path(folder) / "data"
        if not source.is_dir():
            prepare(source if source.exists() else options.dataset, prepared)
        for name in options.encoders.split(","):
            # Written after each encoder: a later failure loses nothing.
            path = RESULTS / f"quality-{Path(options.dataset).stem}.json"
            known = json.loads(path.read_text())["records"] if path.exists() else []
            records = [r for r in known if r["encoder"] != name]
            records.append(run_encoder(name, prepared, options.seed))
            records.sort(key=lambda r: ORDER.index(r["encoder"]) if r["encoder"] in ORDER else len(ORDER))
            write_json(path, {"program": "python -m benchmarks.quality", "records": records})
    text = table(records)
    if options.readme:
        before, _, rest = options.readme.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        write_text(options.readme, f"{before}{BEGIN}\n{text}{END}{after}")
    print(text)
    print(json.dumps({r["encoder"]: r["result"]["metrics"] for r in records}))


if __name__ == "__main__":
    main()
