"""SASRec and BERT4Rec training throughput on a CPU: ours against RecBole, RecTools and RePlay, taking turns.

``python -m recsys.benchmarks.peers.sasrec_training --log interactions.parquet`` makes the peers' environments
on first use, prints a table to standard error and one JSON object as the last line of standard
output. See README.md in this folder.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.benchmarks.peers.contest import DEFAULT_PEERS, PEERS, Contest, run, say
from recsys.benchmarks.peers.log_file import write_log
from recsys.benchmarks.peers.report import print_table, record, write_json
from recsys.errors import ArgumentError, RecsysError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 when at least one pair was measured, 1 when none was, 2 on a user's error."""
    options = _parser().parse_args(arguments)
    try:
        names = _peer_names(options.peers)
        _check(options)
        workdir = options.workdir.expanduser().resolve()
        (workdir / "runs").mkdir(parents=True, exist_ok=True)
        log = workdir / "runs" / f"log-{os.getpid()}.npy"
        facts = write_log(options.log, log)
    except (RecsysError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    say(f"{facts.name}: {facts.users:,} users, {facts.items:,} items, {facts.events:,} events")
    contest = Contest(
        log=log,
        history=facts.history_95,
        workdir=workdir,
        rounds=options.rounds,
        seconds=options.seconds,
        threads=options.threads,
        d_model=64,
        n_layers=2,
        n_heads=2,
        dropout=0.2,
        learning_rate=1e-3,
        batch_events=options.batch_events,
        seed=options.seed,
        peer_python=options.python,
        batch_size=options.batch_size,
    )
    try:
        pairs = run(contest, names)
    finally:
        log.unlink(missing_ok=True)
    result = record(contest, facts, pairs)
    print_table(result)
    if options.out is not None:
        write_json(result, options.out)
    print(json.dumps(result))
    return 0 if any("failure" not in pair for pair in result["pairs"].values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.peers.sasrec_training", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, help="Parquet with user_id, item_id and timestamp or pos")
    add("--peers", default=",".join(DEFAULT_PEERS), help=f"of {', '.join(PEERS)} (default: %(default)s)")
    add("--rounds", type=int, default=3, help="measured slices of each side (default: %(default)s)")
    add("--seconds", type=float, default=6.0, help="least length of a slice (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of each side (default: %(default)s)")
    add("--batch-events", type=int, default=4096, help="ours: events per step (default: %(default)s)")
    add("--batch-size", type=int, default=0, help="of every peer; 0 (default): each one's cheapest, searched")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="write the JSON here too")
    add("--python", default=sys.executable, help="interpreter for the peers (RecBole: 3.11 at most)")
    default = Path("~/.cache/recsys-peers")
    add("--workdir", type=Path, default=default, help="for the peers' environments (default: %(default)s)")
    return parser


def _peer_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PEERS]
    if unknown or not names:
        raise ArgumentError(f"--peers {text!r}: choose from {', '.join(PEERS)}")
    return list(dict.fromkeys(names))


def _check(options: argparse.Namespace) -> None:
    for name, least in (("rounds", 1), ("threads", 1), ("batch_events", 2), ("batch_size", 0)):
        if getattr(options, name) < least:
            raise ArgumentError(f"--{name.replace('_', '-')} must be at least {least}")
    if options.seconds <= 0:
        raise ArgumentError("--seconds must be above 0")
    if options.out is not None and not options.out.resolve().parent.is_dir():
        raise ArgumentError(f"--out {options.out}: the folder does not exist; make it first")


if __name__ == "__main__":
    # Leave through the `finally` blocks, which end the sides, when asked to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
