"""Quality, time and memory of whole trainings: our encoders and the peers' models, one after the other.

``python -m recsys.benchmarks.peers.quality --log interactions.parquet`` trains each side by its library's own
loop on one leave-one-out split, holds it up for evaluations outside of the timed seconds, and computes every
metric by our ranks of all items. See README.md in this folder.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.peers import contest
from recsys.benchmarks.peers.contest import say
from recsys.benchmarks.peers.environments import PeerEnvironment, PeerUnavailable, ensure
from recsys.benchmarks.peers.log_file import write_log
from recsys.benchmarks.peers.process import SideError, SideProcess, own_python
from recsys.benchmarks.peers.protocol import OurTask, Task
from recsys.benchmarks.peers.quality_curves import METRIC, SELECTED, Curve, costs
from recsys.benchmarks.peers.quality_report import draw, print_tables, summary
from recsys.benchmarks.peers.quality_training import Ranking, train
from recsys.benchmarks.peers.suiting import choice, first_batch, suited_length
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import ArgumentError, RecsysError
from recsys.files import write_json

OURS = ("sasrec", "bert4rec", "mamba")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library's model, two layers of two heads, 64 wide.

    Attributes:
        module: side of this package that drives it.
        sliced: the same, trained slice by slice, for the search for the cheapest batch.
        longest: length of history where the log's histories are longer.
        dropout: as in `Task`.
        batch_size: the library's own, in its own unit.
        source: where these come from.
    """

    module: str
    sliced: contest.Peer
    longest: int
    dropout: float
    batch_size: int
    source: str

    @property
    def slices(self) -> str:
        """Side that trains slice by slice."""
        return self.sliced.module

    @property
    def environment(self) -> PeerEnvironment:
        """What it runs in."""
        return self.sliced.environment

    @property
    def d_ff(self) -> int:
        """As in `Task`."""
        return self.sliced.d_ff


_RECTOOLS = Peer(
    module="rectools_quality",
    sliced=contest.PEERS["rectools"],
    longest=200,
    dropout=0.2,
    batch_size=128,
    source="RecTools' defaults but for n_factors 64 (256), n_heads 2 (4), session_max_len (100) by the log",
)
PEERS = {
    "recbole": Peer(
        module="recbole_quality",
        sliced=contest.PEERS["recbole"],
        longest=50,
        dropout=0.5,
        batch_size=2048,
        source="RecBole's defaults, with its CE loss and MAX_ITEM_LIST_LENGTH (50) by the log",
    ),
    "rectools": _RECTOOLS,
    "rectools-bert4rec": replace(
        _RECTOOLS, module="rectools_bert4rec_quality", sliced=contest.PEERS["rectools-bert4rec"]
    ),
    "rectools-fast": replace(
        _RECTOOLS,
        module="rectools_fast_quality",
        sliced=contest.PEERS["rectools-fast"],
        source="the network of RecTools' fast_transformers, in a loop of ours; settings of its SASRecModel",
    ),
    "replay": Peer(
        module="replay_quality",
        sliced=contest.PEERS["replay"],
        longest=200,
        dropout=0.3,
        batch_size=32,
        source="RePlay's defaults but for embedding_dim 64 (192), num_heads 2 (4), length (50) by the log",
    ),
}
DEFAULT_PEERS = ("rectools", "recbole")
# Seconds of a slice of the search for a batch.
SEARCH_S = 1.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0 if ours and a peer were measured, 1 if one is missing, 2 on a user's error."""
    options = _parser().parse_args(arguments)
    workdir = options.workdir.expanduser().resolve()
    try:
        ours, peers = _names(options.ours, OURS, "--ours"), _names(options.peers, PEERS, "--peers")
        _check(options)
        (workdir / "runs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workdir / "runs") as folder:
            result = compare(options, ours, peers, workdir, Path(folder))
    except (RecsysError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_tables(result)
    if options.picture is not None:
        draw(result, options.picture)
    print(json.dumps(result))
    measured = {side["kind"] for side in result["sides"].values() if side["points"]}
    return 0 if measured == {"ours", "peer"} else 1


def compare(
    options: argparse.Namespace, ours: list[str], peers: list[str], workdir: Path, folder: Path
) -> dict[str, Any]:
    """Train every side, one after the other, each in a process of its own."""
    # Ranking is ours and happens here; what it costs should not depend on the cores that are free.
    torch.set_num_threads(options.threads)
    facts = write_log(options.log, folder / "log.npy")
    say(f"{facts.name}: {facts.users:,} users, {facts.items:,} items, {facts.events:,} events")
    log = str(folder / "log.npy")
    frame = pl.DataFrame(np.load(log), schema=["user_id", "item_id", "pos"])
    store = prepare(frame, folder / "store", timestamp_column="pos", time_unit="order")
    rank = Ranking(store, folder / "states.npz")
    curves: dict[str, list[Curve]] = {"ours": [], "peer": []}
    result: dict[str, Any] = {}
    for kind, name in [*(("ours", name) for name in ours), *(("peer", name) for name in peers)]:
        if kind == "ours":
            curve = _train_ours(name, log, options, workdir, rank)
        else:
            length = suited_length(facts.history_95, PEERS[name].longest)
            curve = _train_peer(name, log, options, workdir, rank, length)
        curves[kind].append(curve)
        result = {
            "benchmark": "quality",
            **stamp(),
            "threads": options.threads,
            "log": asdict(facts),
            "config": {k: getattr(options, k) for k in ("seconds", "every", "patience", "batches", "seed")},
            "selected_by": f"validation {METRIC}, seen items {SELECTED}",
            "sides": {
                curve.side: {"kind": kind} | summary(curve)
                for kind, found in curves.items()
                for curve in found
            },
            "costs": costs(*([curve for curve in curves[kind] if curve.points] for kind in ("ours", "peer"))),
        }
        if options.out is not None:
            # What has been measured is kept if a later side takes everything down.
            write_json(options.out, result)
    return result


def _train_ours(name: str, log: str, options: argparse.Namespace, workdir: Path, rank: Ranking) -> Curve:
    task = OurTask(log=log, encoder=name, preset="tuned", seed=options.seed, threads=options.threads)
    side = f"ours ({name})"

    def start() -> SideProcess:
        folder = workdir / "runs" / f"quality-ours-{name}"
        return SideProcess(side, own_python(), "ours_quality", folder, threads=options.threads)

    return train(side, start, asdict(task), 0, options, rank)


def _train_peer(
    name: str, log: str, options: argparse.Namespace, workdir: Path, rank: Ranking, length: int
) -> Curve:
    peer = PEERS[name]
    task = Task(
        log=log,
        d_model=64,
        n_layers=2,
        n_heads=2,
        d_ff=peer.d_ff,
        max_length=length,
        dropout=peer.dropout,
        learning_rate=1e-3,
        batch_size=peer.batch_size,
        seed=options.seed,
        threads=options.threads,
        block="",
        positions="",
    )
    tried: dict[int, float] = {}
    folder = workdir / "runs" / f"quality-{name}"
    try:
        python = ensure(peer.environment, workdir, python=options.python)
        if options.batches == "search":
            task = replace(task, batch_size=first_batch(peer.sliced.positions_first, length))
            side = SideProcess(f"{name} (search)", python, peer.slices, folder, threads=options.threads)
            tried = _search(name, side, task)
            task = replace(task, batch_size=choice(tried))
    except (SideError, PeerUnavailable) as error:
        say(f"{name}: left out: {error}")
        return Curve(side=name, failure=str(error))

    def start() -> SideProcess:
        return SideProcess(name, python, peer.module, folder, threads=options.threads)

    curve = train(name, start, asdict(task), task.batch_size, options, rank)
    told = ("log", "block", "positions", "encoder")
    settings = {key: value for key, value in asdict(task).items() if key not in told}
    curve.facts["settings"] = settings | {"from": peer.source, "batches": options.batches, "search": tried}
    return curve


def _search(name: str, side: SideProcess, task: Task) -> dict[int, float]:
    """Processor microseconds an event by batch size."""
    try:
        side.prepare(task)
        return contest.search_batch(name, lambda size: side.train(SEARCH_S, size), task.batch_size)
    finally:
        side.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.peers.quality", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, help="Parquet with user_id, item_id and timestamp or pos")
    add("--ours", default=OURS[0], help=f"of {', '.join(OURS)} (default: %(default)s)")
    add("--peers", default=",".join(DEFAULT_PEERS), help=f"of {', '.join(PEERS)} (default: %(default)s)")
    add("--seconds", type=float, default=400.0, help="processor seconds of training (default: %(default)s)")
    add(
        "--every",
        type=float,
        default=10.0,
        help="of them from evaluation to evaluation of a peer; ours: epochs",
    )
    add(
        "--patience",
        type=float,
        default=120.0,
        help="of them without a better validation (default: %(default)s)",
    )
    what = (
        "of the peers: each one's cheapest per event, searched, or its library's own (default: %(default)s)"
    )
    add("--batches", choices=("search", "own"), default="search", help=what)
    add("--threads", type=int, default=1, help="of each side (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="write the JSON here too")
    add("--picture", type=Path, help="draw NDCG against seconds into this PNG")
    add("--python", default=sys.executable, help="interpreter for the peers (RecBole: 3.11 at most)")
    default = Path("~/.cache/recsys-peers")
    add("--workdir", type=Path, default=default, help="for the peers' environments (default: %(default)s)")
    return parser


def _names(text: str, known: Iterable[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(known):
        raise ArgumentError(f"{option} {text!r}: choose from {', '.join(known)}")
    return list(dict.fromkeys(names))


def _check(options: argparse.Namespace) -> None:
    for name in ("seconds", "every", "patience", "threads"):
        if getattr(options, name) <= 0:
            raise ArgumentError(f"--{name} must be above 0")
    for name in ("out", "picture"):
        path = getattr(options, name)
        if path is not None and not path.resolve().parent.is_dir():
            raise ArgumentError(f"--{name} {path}: the folder does not exist; make it first")


if __name__ == "__main__":
    # Leave through the `finally` blocks, which end the sides, when asked to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
