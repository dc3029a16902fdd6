"""Speed of evaluation on a CPU: ours against RecBole's and RecTools' on the same scores, taking turns.

``python -m recsys.benchmarks.peers.evaluation --log interactions.parquet`` ranks every user's last event
among all items by the product of one state per user and one vector per item, drawn at random so that the
targets are found at all places of the lists. See README.md in this folder.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.peers.contest import SETTLE_S, say
from recsys.benchmarks.peers.environments import RECBOLE, RECTOOLS, PeerEnvironment, PeerUnavailable, ensure
from recsys.benchmarks.peers.log_file import write_log
from recsys.benchmarks.peers.process import SideError, SideProcess, own_python
from recsys.benchmarks.peers.protocol import EvaluationTask
from recsys.errors import ArgumentError, RecsysError
from recsys.files import write_json

# Module, environment and users scored at once: see README.md.
PEERS: dict[str, tuple[str, PeerEnvironment, int]] = {
    "recbole": ("recbole_evaluation", RECBOLE, 256),
    "rectools": ("rectools_evaluation", RECTOOLS, 256),
}
OUR_BATCH = 1024
WIDTH = 64
KS = (1, 5, 10, 20)
RULES = ("kept", "removed")
AGREE_WITHIN = 1e-4
# Processor time suffers less from others on the machine; it counts threads' waiting too, so use one thread.
CLOCKS = ("seconds", "cpu_seconds")
Times = dict[str, dict[str, list[float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0 if a peer was measured and all agree, 1 if none was or one does not, 2 on an error."""
    options = _parser().parse_args(arguments)
    names = [name for name in options.peers.split(",") if name]
    workdir = options.workdir.expanduser().resolve()
    (workdir / "runs").mkdir(parents=True, exist_ok=True)
    try:
        if not names or set(names) - set(PEERS) or options.rounds < 1:
            raise ArgumentError(f"--peers must be of {', '.join(PEERS)} and --rounds at least 1")
        with tempfile.TemporaryDirectory(dir=workdir / "runs") as folder:
            result = compare(options, names, workdir, Path(folder))
    except (RecsysError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out is not None:
        write_json(options.out, result)
    print(json.dumps(result))
    agree = [peer["agrees"] for peer in result["peers"].values() if "failure" not in peer]
    return 0 if agree and all(agree) else 1


def compare(options: argparse.Namespace, names: list[str], workdir: Path, folder: Path) -> dict[str, Any]:
    """Prepare all sides, run each once for its metrics and to warm up, then let them take turns."""
    facts = write_log(options.log, folder / "log.npy")
    say(f"{facts.name}: {facts.users:,} users, {facts.items:,} items, {facts.events:,} events")
    draw_vectors(folder, np.random.default_rng(options.seed))
    sides: dict[str, SideProcess] = {}
    failures: dict[str, str] = {}
    described: dict[str, Any] = {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    who = {"ours": ("ours_evaluation", None, OUR_BATCH), **{name: PEERS[name] for name in names}}
    try:
        for name, (module, environment, batch) in who.items():
            say(f"{name}: preparing")
            batch = options.batch_users if options.batch_users and name != "ours" else batch
            task = EvaluationTask(
                log=str(folder / "log.npy"),
                states=str(folder / "states.npy"),
                items=str(folder / "items.npy"),
                ks=KS,
                batch_users=batch,
                threads=options.threads,
            )
            try:
                python = own_python() if environment is None else ensure(environment, workdir)
                side_folder = workdir / "runs" / f"evaluation-{name}"
                sides[name] = SideProcess(name, python, module, side_folder, threads=options.threads)
                described[name] = sides[name].prepare(task)
                found[name] = sides[name].evaluate("both")["metrics"]
            except (SideError, PeerUnavailable) as error:
                if name == "ours":
                    raise ArgumentError(str(error)) from None
                failures[name] = str(error)
                say(f"{name}: left out: {error}")
        measured = [name for name in names if name not in failures]
        times = take_turns(sides, measured, options.rounds)
    finally:
        for side in sides.values():
            side.close()
    peers: dict[str, Any] = {name: {"failure": failure} for name, failure in failures.items()}
    for name in measured:
        peers[name] = summarize(times, name, found)
        say(line(name, peers[name]))
    return {
        "benchmark": "evaluation",
        **stamp(),
        "threads": options.threads,
        "log": asdict(facts),
        "width": WIDTH,
        "ks": KS,
        "rounds": options.rounds,
        "sides": described,
        "metrics": found,
        "ours": {clock: times[clock]["ours both"] for clock in CLOCKS},
        "peers": peers,
    }


def draw_vectors(folder: Path, generator: np.random.Generator) -> None:
    """Write a vector per item, and per user a noisy copy of the target's: ranks from 1 to the last."""
    log = np.load(folder / "log.npy")
    last = np.append(np.flatnonzero(np.diff(log[:, 0])), len(log) - 1)
    items = generator.standard_normal((int(log[:, 1].max()), WIDTH), dtype=np.float32)
    noise = generator.standard_normal((len(last), WIDTH), dtype=np.float32)
    np.save(folder / "items.npy", items)
    np.save(folder / "states.npy", 0.35 * items[log[last, 1] - 1] + noise)


def take_turns(sides: dict[str, SideProcess], peers: list[str], rounds: int) -> Times:
    """Time every evaluation: ours ranks by both rules at once, a peer by one or the other."""
    turns = [("ours", "both"), *[(name, rule) for name in peers for rule in RULES]]
    times: Times = {clock: {f"{name} {rule}": [] for name, rule in turns} for clock in CLOCKS}
    for number in range(rounds):
        for name, rule in turns if number % 2 == 0 else turns[::-1]:
            time.sleep(SETTLE_S)
            answer = sides[name].evaluate(rule)
            for clock in CLOCKS:
                times[clock][f"{name} {rule}"].append(answer[clock])
    return times


def summarize(times: Times, name: str, found: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """A peer's times and ratios to ours, round by round, and how far its metrics lie from ours."""
    result: dict[str, Any] = {}
    for clock in CLOCKS:
        ours = times[clock]["ours both"]
        kept, removed = (times[clock][f"{name} {rule}"] for rule in RULES)
        ratios = {
            "kept": [t / own for t, own in zip(kept, ours, strict=True)],
            "removed": [t / own for t, own in zip(removed, ours, strict=True)],
            "both": [(a + b) / own for a, b, own in zip(kept, removed, ours, strict=True)],
        }
        spans = {
            rule: {"median": statistics.median(r), "lowest": min(r), "highest": max(r)}
            for rule, r in ratios.items()
        }
        result[clock] = {"kept": kept, "removed": removed, "times_ours": spans}
    apart = max(
        abs(found[name][rule][metric] - found["ours"][rule][metric])
        for rule in RULES
        for metric in (f"ndcg@{k}" for k in KS)
    )
    return result | {"largest_ndcg_difference": apart, "agrees": apart < AGREE_WITHIN}


def line(name: str, peer: dict[str, Any]) -> str:
    """A peer's result as a person reads it."""
    found = []
    for clock in CLOCKS:
        times = peer[clock]
        spans = [
            f"{rule} {r['median']:.1f} ({r['lowest']:.1f} to {r['highest']:.1f})"
            for rule, r in times["times_ours"].items()
        ]
        kept, removed = (statistics.median(times[rule]) for rule in RULES)
        found.append(
            f"{name}, {clock}: {kept:.3f} kept, {removed:.3f} removed; times ours, which does both: "
            + ", ".join(spans)
        )
    agrees = "agrees" if peer["agrees"] else "DOES NOT AGREE"
    return "\n".join([*found, f"{name}: NDCG {agrees}, {peer['largest_ndcg_difference']:.1e} apart"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.peers.evaluation", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, help="Parquet with user_id, item_id and timestamp or pos")
    add("--peers", default=",".join(PEERS), help="(default: %(default)s)")
    add("--rounds", type=int, default=5, help="evaluations of each side and rule (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of each side (default: %(default)s)")
    add("--batch-users", type=int, help="users that a peer scores at once, instead of its fastest")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="write the JSON here too")
    default = Path("~/.cache/recsys-peers")
    add("--workdir", type=Path, default=default, help="for the peers' environments (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
