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
from recsys.benchmarks.peers.contest import say
from recsys.benchmarks.peers.environments import RECBOLE, RECTOOLS, PeerEnvironment, ensure
from recsys.benchmarks.peers.log_file import write_log
from recsys.benchmarks.peers.process import SideProcess, own_python
from recsys.benchmarks.peers.protocol import OurTask, Task
from recsys.benchmarks.peers.quality_curves import METRIC, SELECTED, Curve, costs
from recsys.benchmarks.peers.quality_report import draw, print_tables, summary
from recsys.benchmarks.peers.quality_training import Ranking, train
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import ArgumentError, RecsysError
from recsys.files import write_json

OURS = ("sasrec", "bert4rec", "mamba")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library's model, two layers of two heads, 64 wide.

    Attributes:
        module: side of this package that drives it.
        d_ff, max_length, dropout, batch_size: as in `Task`; batch_size in the library's own unit.
        source: where these come from.
    """

    module: str
    environment: PeerEnvironment
    d_ff: int
    max_length: int
    dropout: float
    batch_size: int
    source: str


_RECBOLE = Peer(
    module="recbole_quality",
    environment=RECBOLE,
    d_ff=256,
    max_length=50,
    dropout=0.5,
    batch_size=2048,
    source="RecBole's defaults, with its CE loss",
)
_RECTOOLS = Peer(
    module="rectools_quality",
    environment=RECTOOLS,
    d_ff=64,
    max_length=200,
    dropout=0.2,
    batch_size=128,
    source="RecTools' defaults but for n_factors 64 (256), n_heads 2 (4), session_max_len 200 (100)",
)
PEERS = {
    "recbole": _RECBOLE,
    "recbole-128": replace(
        _RECBOLE,
        batch_size=128,
        source=_RECBOLE.source + ", train_batch_size 128 (2048), its cheapest per event",
    ),
    "rectools": _RECTOOLS,
    "rectools-8": replace(
        _RECTOOLS, batch_size=8, source=_RECTOOLS.source + ", batch_size 8 (128), its cheapest per event"
    ),
    "rectools-bert4rec": replace(_RECTOOLS, module="rectools_bert4rec_quality", d_ff=256),
}
# On a CPU the libraries' own batches make too few steps in any budget of minutes to learn much.
DEFAULT_PEERS = ("rectools-8", "recbole-128")


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
        one = _train_ours if kind == "ours" else _train_peer
        curves[kind].append(one(name, log, options, workdir, rank))
        result = {
            "benchmark": "quality",
            **stamp(),
            "threads": options.threads,
            "log": asdict(facts),
            "config": {k: getattr(options, k) for k in ("seconds", "every", "patience", "seed")},
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


def _train_peer(name: str, log: str, options: argparse.Namespace, workdir: Path, rank: Ranking) -> Curve:
    peer = PEERS[name]
    task = asdict(_task(peer, log, options))

    def start() -> SideProcess:
        python = ensure(peer.environment, workdir, python=options.python)
        folder = workdir / "runs" / f"quality-{name}"
        return SideProcess(name, python, peer.module, folder, threads=options.threads)

    curve = train(name, start, task, peer.batch_size, options, rank)
    settings = {key: value for key, value in task.items() if key not in ("log", "block", "positions")}
    curve.facts["settings"] = settings | {"from": peer.source}
    return curve


def _task(peer: Peer, log: str, options: argparse.Namespace) -> Task:
    return Task(
        log=log,
        d_model=64,
        n_layers=2,
        n_heads=2,
        d_ff=peer.d_ff,
        max_length=peer.max_length,
        dropout=peer.dropout,
        learning_rate=1e-3,
        batch_size=peer.batch_size,
        seed=options.seed,
        threads=options.threads,
        block="",
        positions="",
    )


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
