"""What columns, weights and conditions of events are worth on real logs.

    python -m recsys.benchmarks.columns ml-100k globo-news --data LOGS --runs RUNS --seeds 0 1 2 \
      --out benchmarks/results/columns.json

SASRec is trained for a fixed number of epochs by equal settings, on the same part of a log and tested on the
same targets, by sides that differ in what they read of the events or how these count. Sides are paired user
by user. LOGS holds NAME/interactions.parquet. What RUNS holds is not trained again, and a record that is
there keeps its other studies.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.columns.measuring import measure, summarize
from recsys.benchmarks.columns.studies import STUDIES
from recsys.benchmarks.columns.table import columns_table
from recsys.benchmarks.machine import stamp
from recsys.errors import RecsysError
from recsys.files import read_json, write_json


def main() -> int:
    """Train what is not done, pair, print, write; 0, or 2 on a user's error."""
    names = [study.name for study in STUDIES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(names)}; none for all")
    parser.add_argument("--data", type=Path, required=True, help="folder of logs")
    parser.add_argument("--runs", type=Path, required=True, help="folder of prepared logs and outcomes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if wrong := sorted({*options.studies} - {*names}):
        parser.error(f"no study {wrong[0]!r}; there are {', '.join(names)}")
    torch.set_num_threads(1)
    known = read_json(options.out)["studies"] if options.out is not None and options.out.exists() else {}
    chosen = [study for study in STUDIES if study.name in options.studies or not options.studies]
    try:
        for study in chosen:
            measure(
                study, options.seeds, options.data, options.runs, say=lambda text: print(text, flush=True)
            )
            known[study.name] = summarize(study, options.seeds, options.runs)
            record: dict[str, Any] = {**stamp(), "encoder": "sasrec", "studies": {}}
            record["studies"] = {name: known[name] for name in names if name in known}
            if options.out is not None:
                write_json(options.out, record)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(columns_table(record), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
