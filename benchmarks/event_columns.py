"""What columns cost: training steps with columns of events, requests and users and without, in turn.

    python -m recsys.benchmarks.event_columns --log LOG [--log LOG] --json FILE

LOG is a Parquet file; `--order COLUMN` names a column that only orders events. Columns are made, as their
values change no time: ``action`` of 5 values and ``device`` of 100, drawn for each event, and ``region`` of
20 for each user; a log with times has the hours of UTC, too. Times are processor times of one thread, of
batches of 4,096 events and windows of 200, in turn.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys import prepare
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.steps import SAME, Steps, alternate_steps
from recsys.files import write_json

__all__ = ["step_times"]

SIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "none": {},
    "one column": {"event_columns": ("action",)},
    "one column, one of the request": {"event_columns": ("action",), "request_columns": ("device",)},
    "two columns, one of the request": {
        "event_columns": ("action", "device"),
        "request_columns": ("device",),
    },
    "one column of users": {"user_columns": ("region",)},
}
HOURS: dict[str, tuple[str, ...]] = {"event_columns": ("local_hour",), "request_columns": ("local_hour",)}
"""The side of logs that have times."""


def step_times(log: pl.DataFrame, encoder: str, rounds: int, **read: Any) -> dict[str, Any]:
    """Steps of an encoder with and without columns, in turn; "none" is the first side."""
    rng = np.random.default_rng(0)
    made = log.with_columns(
        pl.Series("action", rng.integers(0, 5, log.height)).cast(pl.String),
        pl.Series("device", rng.integers(0, 100, log.height)).map_elements("d{}".format, pl.String),
        region=pl.format("r{}", pl.col("user_id").hash(0) % 20),
    )
    asked: dict[str, Any] = {
        "event_columns": "action,device",
        "request_columns": "device",
        "user_columns": "region",
    }
    columns_of = dict(SIDES)
    if "time_unit" not in read:
        read["time_zone"] = "+00:00"
        columns_of["the hour of events and requests"] = HOURS
    with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
        store = prepare(made, Path(scratch) / "data", **asked, **read)
        sides = {
            name: Steps(encoder, store, encoder={**SAME, **columns}, loss="full")
            for name, columns in columns_of.items()
        }
        return alternate_steps(sides, rounds)


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", action="append", required=True, help="a log")
    parser.add_argument("--order", help="column that orders events, where there are no times")
    parser.add_argument("--encoder", default="sasrec", help="of the steps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="of steps in turn (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": stamp(), "encoder": options.encoder, "logs": {}}
    read = {} if options.order is None else {"timestamp_column": options.order, "time_unit": "order"}
    for place in options.log:
        name = Path(place).resolve().parent.name
        log = pl.read_parquet(place)
        result["logs"][name] = step_times(log, options.encoder, options.rounds, **read)
        print(name, json.dumps(result["logs"][name]), flush=True)
    if options.json is not None:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
