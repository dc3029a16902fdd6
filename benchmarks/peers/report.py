"""The result as one JSON object and as a table for people."""

import contextlib
import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.benchmarks.machine import commit
from recsys.benchmarks.peers.contest import PEERS, Contest, PairResult
from recsys.benchmarks.peers.log_file import LogFacts
from recsys.diagnosis.environment import processor_name

COUNTED = (
    "Events supervised: (position -> target) pairs that enter the loss. RecBole: one per prefix row; "
    "RecTools: every non-padding position of a sequence's last max_length + 1 events; RePlay: those and a "
    "padded sequence's first item; ours: every event of a window but its first. BERT4Rec: masked positions."
)


def record(contest: Contest, log: LogFacts, pairs: Sequence[PairResult]) -> dict[str, Any]:
    """Everything that was measured and under what conditions, ready for JSON."""
    settings = asdict(contest)
    for key in ("log", "workdir", "peer_python"):
        settings.pop(key)
    return {
        "benchmark": "sasrec_training",
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(contest.threads),
        "log": asdict(log),
        "config": settings,
        "counted": COUNTED,
        "pairs": {pair.peer: summarize(pair) for pair in pairs},
    }


def summarize(pair: PairResult) -> dict[str, Any]:
    """Medians and spreads of one pair, with all its slices."""
    peer = PEERS[pair.peer]
    shared = {
        "max_length": pair.max_length,
        "our_encoder": peer.encoder,
        "d_ff": peer.d_ff,
        "our_block": peer.block,
        "our_positions": peer.positions,
        "peer_batch_size": pair.batch_size,
        "differs": peer.differs,
    }
    if pair.failure is not None or not pair.rounds:
        return shared | {"failure": pair.failure or "no rounds were asked for", "facts": pair.facts}
    return shared | {
        "ratio": _spread(pair.ratios()),
        "events_per_second": {side: _spread(pair.rates(side)) for side in ("ours", "peer")},
        "loss": {
            side: {"first": pair.warm_up[side]["loss"], "last": pair.rounds[-1][side]["loss"]}
            for side in ("ours", "peer")
        },
        "loss_decreases": all(
            pair.rounds[-1][side]["loss"] < pair.warm_up[side]["loss"] for side in ("ours", "peer")
        ),
        "training_peak_mib": {
            side: max(part[side]["peak_mib"] for part in pair.rounds) for side in ("ours", "peer")
        },
        **{
            key: {
                side: statistics.median(part[side][key] for part in pair.rounds) for side in ("ours", "peer")
            }
            for key in ("cores_busy", "cpu_us_per_event")
        },
        "search": pair.search,
        "facts": pair.facts,
        "warm_up": pair.warm_up,
        "rounds": pair.rounds,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print the table and what it counts to standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 190)
    table = Table(title=_title(result))
    for heading, justify in (
        ("side", "left"),
        ("batch", "left"),
        ("events/s, median (min-max)", "right"),
        ("ours / peer (min-max)", "right"),
        ("loss first -> last", "right"),
        ("parameters", "right"),
        ("prepare s", "right"),
        ("peak MiB", "right"),
        ("cores busy", "right"),
        ("CPU us/event", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, pair in result["pairs"].items():
        for side, label in (("ours", f"ours ({pair['our_encoder']}, {pair['our_block']})"), ("peer", name)):
            table.add_row(label, *_cells(result, pair, side), end_section=side == "peer")
    console.print(table)
    console.print(result["counted"])
    for name, pair in result["pairs"].items():
        if "failure" in pair:
            console.print(f"{name} could not be measured: {pair['failure']}")
        else:
            length = pair["max_length"]
            console.print(f"{name}: max length {length}; what differs: {pair['differs']}.")
            if pair["search"]:
                tried = ", ".join(f"{size}: {cost:,.0f}" for size, cost in sorted(pair["search"].items()))
                console.print(f"{name}: processor us an event by batch size: {tried}")
            if not pair["loss_decreases"]:
                console.print(f"{name}: a side's loss did not decrease; do not trust this pair.")


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write the record under a temporary name and rename it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    memory = None
    with contextlib.suppress(OSError, ValueError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        # Above 0 with nothing else running, the figures share the machine with somebody.
        "load_average": os.getloadavg(),
    }


def _cells(result: dict[str, Any], pair: dict[str, Any], side: str) -> list[str]:
    if "failure" in pair:
        return ["", "failed", *[""] * 7]
    facts, rate, loss = pair["facts"][side], pair["events_per_second"][side], pair["loss"][side]
    size = pair["peer_batch_size"] if side == "peer" else result["config"]["batch_events"]
    ratio = pair["ratio"]
    shown = "" if side == "ours" else f"{ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})"
    return [
        f"{size:,} {facts['batch_unit']}",
        f"{rate['median']:,.0f} ({rate['min']:,.0f}-{rate['max']:,.0f})",
        shown,
        f"{loss['first']:.2f} -> {loss['last']:.2f}",
        f"{facts['parameters']:,}",
        f"{facts['prepare_seconds']:.1f}",
        f"{pair['training_peak_mib'][side]:,.0f}",
        f"{pair['cores_busy'][side]:.1f}",
        f"{pair['cpu_us_per_event'][side]:,.0f}",
    ]


def _title(result: dict[str, Any]) -> str:
    log, config, where = result["log"], result["config"], result["machine"]
    return (
        f"Training, {log['name']} ({log['users']:,} users, {log['items']:,} items, {log['events']:,} "
        f"events), d {config['d_model']}, {config['n_layers']} layers, {config['n_heads']} heads, full "
        f"softmax; {where['cpu']}, {where['threads']} threads, {config['rounds']} rounds"
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
