"""A log prepared as one store and as shards: memory, time, and whether both hold the same.

    python -m recsys.benchmarks.scale.shards --json benchmarks/results/scale/shards.json

The log is made: users with a log-normal number of events, items by Zipf's law, rows in random order, most
events with another of their user at the same time. Each preparation is a process of its own, whose peak of
resident memory is read at its end. Then every user's events are compared, shard by shard, and the files of
two preparations with other numbers of threads. Exit code 1 if anything differs, or the peak of the shards is
above a quarter of the one store's and 300 MiB.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys.files import write_json

ROWS_AT_ONCE = 1 << 20
BESIDES_MIB = 300
CHILD = """
import json, resource, sys, time
from recsys.datasets.preparing.prepare import prepare
log, out, shards = sys.argv[1:]
started = time.perf_counter()
prepare(log, out, shards=int(shards) or None)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_mib": used.ru_maxrss / 1024,
}))
"""


def make_log(path: Path, n_events: int, n_items: int, seed: int = 0) -> None:
    """Write a log of made events as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    share = rng.lognormal(sigma=1.0, size=n_events // 25)
    of_users, of_items = np.cumsum(share / share.sum()), np.cumsum(1 / np.arange(1, n_items + 1))
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for start in range(0, n_events, ROWS_AT_ONCE):
            n = min(ROWS_AT_ONCE, n_events - start)
            users = np.searchsorted(of_users, rng.random(n)) * 7919 % 1_000_003_000
            items = np.searchsorted(of_items, rng.random(n) * of_items[-1])
            days = rng.integers(0, 14, n)
            columns = (users, items, 1_700_000_000 + days * 86_400)
            file.write_table(pa.table([pa.array(column) for column in columns], schema=schema))


def prepared(log: Path, out: Path, shards: int, threads: int) -> dict[str, float]:
    """Prepare in a process of its own; time and peak memory."""
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads)}
    command = [sys.executable, "-c", CHILD, str(log), str(out), str(shards)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts


def files_hash(folder: Path) -> str:
    """Hash of the names and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {found}\n".encode())
    return digest.hexdigest()


def differing_events(plain_folder: Path, shards_folder: Path) -> dict[str, int]:
    """Compare every user of every shard with the same user of the one store."""
    from recsys.datasets.prepared.sharded_store import ShardedStore
    from recsys.datasets.prepared.store import SequenceStore
    from recsys.datasets.prepared.vocabulary import user_vocabulary
    from recsys.jagged import flat_ranges

    plain, store = SequenceStore.open(plain_folder), SequenceStore.open(shards_folder)
    assert isinstance(store, ShardedStore)
    assert plain.timestamps is not None
    vocabulary = user_vocabulary(plain)
    users = events = differing = 0
    for number in range(store.n_shards):
        shard = store.shard(number)
        assert shard.timestamps is not None
        same = vocabulary.encode(user_vocabulary(shard).ids)
        rows = flat_ranges(plain.offsets[same], plain.offsets[same + 1])
        if len(rows) != shard.n_events:
            raise SystemExit(f"shard {number} holds {shard.n_events} events, {len(rows)} belong there")
        wrong = (plain.items[rows] != shard.items) | (plain.timestamps[rows] != shard.timestamps)
        moved = shard.offsets[:-1] - plain.offsets[same]
        for mark in ("valid_start", "test_start"):
            differing += int(np.count_nonzero(getattr(plain, mark)[same] + moved != getattr(shard, mark)))
        differing += int(np.count_nonzero(wrong))
        users, events = users + shard.n_users, events + shard.n_events
    differing += int(np.count_nonzero(plain.item_counts() != store.item_counts()))
    return {"users": users, "events": events, "of": plain.n_events, "differing": differing}


def main() -> int:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="for the log and the stores; goes at the end")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from recsys.benchmarks.machine import stamp

    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        make_log(folder / "log.parquet", arguments.events, arguments.items)
        found: dict[str, Any] = {
            "plain": prepared(folder / "log.parquet", folder / "plain", 0, 2),
            "shards": prepared(folder / "log.parquet", folder / "shards", arguments.shards, 2),
            "shards, one thread": prepared(folder / "log.parquet", folder / "one", arguments.shards, 1),
        }
        compared = differing_events(folder / "plain", folder / "shards")
        hashes = [files_hash(folder / name) for name in ("shards", "one")]
        meta = json.loads((folder / "shards" / "shards.json").read_text(encoding="utf-8"))
        shutil.rmtree(folder / "one")
    limit = found["plain"]["peak_mib"] / 4 + BESIDES_MIB
    result = {
        "benchmark": "a log as one store and as shards",
        **stamp(),
        "events": arguments.events,
        "items": arguments.items,
        "shards": arguments.shards,
        "tied_share": meta["counts"]["tied_events"] / meta["counts"]["events"],
        "preparations": found,
        "limit_mib": limit,
        "compared": compared,
        "files_sha256": hashes,
    }
    for name, facts in found.items():
        print(
            f"{name}: {facts['seconds']:.0f} s, {facts['cpu_seconds']:.0f} CPU s, {facts['peak_mib']:.0f} MiB"
        )
    print(f"limit {limit:.0f} MiB; {compared}; ties {result['tied_share']:.0%}; {hashes}")
    if arguments.json:
        write_json(arguments.json, result)
    right = not compared["differing"] and compared["events"] == compared["of"] and hashes[0] == hashes[1]
    return 0 if right and found["shards"]["peak_mib"] <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
