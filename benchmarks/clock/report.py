"""From the study's records: the table, tests over users, NDCG by hour and its picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.benchmarks.clock.cells import ENCODERS, NAMES, VARIANTS
from recsys.benchmarks.clock.counts import count_ranks
from recsys.benchmarks.clock.requests import Floats, Requests, by_user, gains
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import RunError
from recsys.evaluation.bootstrap import paired_difference
from recsys.evaluation.hour_plot import plot_by_hour
from recsys.files import read_json, write_json

RESAMPLES = 10_000
BANDS = {
    "5 to 10": range(5, 11),
    "11 to 15": range(11, 16),
    "16 to 20": range(16, 21),
    "21 to 4": (*range(21, 24), *range(5)),
}
Found = dict[tuple[str, str], dict[int, dict[str, Any]]]


def report(store: SequenceStore, requests: Requests, runs: Path, out: Path) -> str:
    """Write the summary and the picture beside it, and return the table as Markdown.

    Raises:
        RunError: no record is there, or one answers other requests.
    """
    found = _read(runs, requests)
    seeds = {cell: sorted(records) for cell, records in found.items()}
    rows: list[dict[str, Any]] = []
    for encoder in ENCODERS:
        rows += [
            _row(found, encoder, variant, requests) for variant in VARIANTS if (encoder, variant) in found
        ]
    counts = {name: gains(ranks) for name, ranks in count_ranks(store, requests).items()}
    references = {name: float(by_user(gain, requests).mean()) for name, gain in counts.items()}
    hours = {e: _by_hour(found, e, requests) for e in ENCODERS if any(cell[0] == e for cell in found)}
    asked = np.bincount(requests.hour, minlength=24)
    first = next(iter(found.values()))
    machine = next(iter(first.values()))
    summary = {
        "benchmark": "clock-study",
        "log": store.name,
        "users": len(np.unique(requests.user)),
        "requests": len(requests.item),
        "repeated_share": float(requests.repeated.mean()),
        "training_config": machine["training_config"],
        "commits": sorted({r["commit"] for records in found.values() for r in records.values()}),
        "machine": machine["machine"],
        "seeds": {f"{e}-{v}": s for (e, v), s in seeds.items()},
        "counts": references,
        "rows": rows,
        "hours": {"requests": asked, **hours},
    }
    write_json(out, summary)
    plot_by_hour(
        {encoder: {NAMES[v]: line for v, line in lines.items()} for encoder, lines in hours.items()},
        asked.tolist(),
        out.with_suffix(".png"),
        title=f"{store.name}: {len(requests.item):,} requests, all items ranked, mean over seeds",
    )
    return study_tables(summary)


def study_tables(summary: Mapping[str, Any]) -> str:
    """The two tables of a study, from the summary that `report` writes."""
    hours = {encoder: lines for encoder, lines in summary["hours"].items() if encoder != "requests"}
    bands = _bands(hours, np.array(summary["hours"]["requests"]))
    return f"{table(summary['rows'], summary['counts'])}\n\n{bands}".rstrip() + "\n"


def table(rows: list[dict[str, Any]], references: Mapping[str, float]) -> str:
    """The summary for people."""
    lines = [
        "| encoder | time | seeds | NDCG@10 (each seed) | minus no clock, 95%, p | clock minus it, p |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = ", ".join(f"{value:.4f}" for value in row["each_seed"])
        cells = ["", ""]
        for place, key in enumerate(("against_off", "pool_against")):
            test = row.get(key)
            if test is not None:
                interval = f" ({test['low']:+.4f} to {test['high']:+.4f})" if place == 0 else ""
                cells[place] = f"{test['difference']:+.4f}{interval}, p {test['p_value']:.2g}"
        lines.append(
            f"| {row['encoder']} | {NAMES[row['variant']]} | {len(row['each_seed'])} | {row['ndcg@10']:.4f} "
            f"({each}) | {cells[0]} | {cells[1]} |"
        )
    lines.append("| mamba | time-gap bias | | not available: no attention to add it to | | |")
    lines += [f"| no encoder | {name} | | {value:.4f} | | |" for name, value in references.items()]
    return "\n".join(lines)


def _bands(hours: Mapping[str, Mapping[str, list[float | None]]], asked: NDArray[np.int64]) -> str:
    """What the clock adds by part of the day, each request counting the same; empty without both sides."""
    columns = [f"{name} h ({int(asked[list(band)].sum()):,})" for name, band in BANDS.items()]
    lines = [f"| clock minus no clock, requests at | {' | '.join(columns)} |", "|---" * 5 + "|"]
    for encoder, found in hours.items():
        if "pool" not in found or "off" not in found:
            continue
        gain = np.array(found["pool"], dtype=float) - np.array(found["off"], dtype=float)
        sums = [np.nansum((gain * asked)[list(b)]) / max(1, asked[list(b)].sum()) for b in BANDS.values()]
        lines.append(f"| {encoder} | {' | '.join(f'{value:+.4f}' for value in sums)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _read(runs: Path, requests: Requests) -> Found:
    found: Found = {}
    for encoder in ENCODERS:
        for variant in VARIANTS:
            for path in sorted(runs.glob(f"{encoder}-{variant}-[0-9]*.json")):
                record = read_json(path)
                if record["requests"] != requests.digest:
                    raise RunError(f"{path}: answers other requests; take another --runs folder")
                found.setdefault((encoder, variant), {})[record["seed"]] = record
    if not found:
        raise RunError(f"{runs}: holds no record of a run")
    return found


def _row(found: Found, encoder: str, variant: str, requests: Requests) -> dict[str, Any]:
    records = found[encoder, variant]
    row = {
        "encoder": encoder,
        "variant": variant,
        "ndcg@10": float(np.mean([r["ndcg@10"] for r in records.values()])),
        "each_seed": [records[seed]["ndcg@10"] for seed in sorted(records)],
        "first_event_ndcg@10": float(np.mean([r["first_event"]["ndcg@10"] for r in records.values()])),
        "epochs": [records[seed]["epochs"] for seed in sorted(records)],
        "best_epoch": [records[seed]["best_epoch"] for seed in sorted(records)],
        "training_seconds": [round(records[seed]["training_seconds"]) for seed in sorted(records)],
    }
    if variant != "off":
        row["against_off"] = _compare(found, (encoder, variant), (encoder, "off"), requests)
    if variant not in ("off", "pool"):
        row["pool_against"] = _compare(found, (encoder, "pool"), (encoder, variant), requests)
    return row


def _compare(
    found: Found, one: tuple[str, str], other: tuple[str, str], requests: Requests
) -> dict[str, Any] | None:
    """Paired over users, each user's mean over requests and over the seeds that both cells have."""
    if one not in found or other not in found:
        return None
    seeds = sorted(found[one].keys() & found[other].keys())
    if not seeds:
        return None
    sides = [
        np.mean([by_user(gains(np.array(found[cell][s]["ranks"])), requests) for s in seeds], axis=0)
        for cell in (one, other)
    ]
    test = paired_difference(sides[0], sides[1], np.random.default_rng(0), resamples=RESAMPLES)
    return {"seeds": seeds, **test._asdict()}


def _by_hour(found: Found, encoder: str, requests: Requests) -> dict[str, list[float | None]]:
    """NDCG@10 of the requests of each local hour, mean over the seeds, each request counting the same."""
    asked = np.bincount(requests.hour, minlength=24)
    lines: dict[str, list[float | None]] = {}
    for variant in VARIANTS:
        records = found.get((encoder, variant))
        if records is None:
            continue
        each: list[Floats] = [gains(np.array(r["ranks"])) for r in records.values()]
        sums = np.bincount(requests.hour, np.mean(each, axis=0), minlength=24)
        lines[variant] = [float(s / n) if n else None for s, n in zip(sums, asked, strict=True)]
    return lines
