"""Tables made from one record each."""

import math
from collections.abc import Mapping
from typing import Any

from recsys.benchmarks.folders import RECORDS
from recsys.files import read_json

__all__ = [
    "clock_errors",
    "clock_times",
    "filters",
    "latency",
    "neighbours",
    "peers_costs",
    "peers_quality",
    "record",
    "request",
    "servers",
    "training_peers",
    "vectors",
]

LONGEST = "denoise, as long as the longest"

DATASETS = {"ml-1m-sasrec-order": "ml-1m"}


def record(name: str) -> Mapping[str, Any]:
    """A committed record by its name."""
    found: Mapping[str, Any] = read_json(RECORDS / f"{name}.json")
    return found


def filters() -> str:
    """Filtered searches against FAISS's own way."""
    lines = [
        "| items | batch | excluding seen, times the unfiltered cost "
        "| 1% category against FAISS's bitmap selector | the same, gathered anew |",
        "|---|---|---|---|---|",
    ]
    for row in record("retrieval-filters")["results"]:
        category = row["category"]
        lines.append(
            f"| {row['items']:,} | {row['batch']} | {row['seen']['seen_over_unfiltered']['median']:.2f} "
            f"| {category['bitmap_over_kept']['median']:.1f} times faster "
            f"| {category['bitmap_over_anew']['median']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def request() -> str:
    """A request by stage, on the log that the tuned runs are of."""
    stages = ("ids", "encode", "search", "names", "total", "step")
    lines = [
        "| | | ids | encode | search | names | total | step (instead of encode) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {"sasrec": "SASRec", "bert4rec": "BERT4Rec", "mamba": "Mamba"}
    runs = {run["encoder"]: run for run in record("retrieval-request")["runs"] if run["dataset"] in DATASETS}
    for encoder, name in names.items():
        for mark in ("p50", "p99"):
            times = [_short(runs[encoder]["stages"][stage][f"{mark}_ms"]) for stage in stages]
            lines.append(f"| {name if mark == 'p50' else ''} | {mark} | {' | '.join(times)} |")
    return "\n".join(lines) + "\n"


def servers() -> str:
    """A narrow filter on servers' graphs alone, and on the kinds over them."""
    lines = [
        "| | ms | recall of the 100 best | fewest answers | answers in the middle |",
        "|---|---|---|---|---|",
    ]
    for name, own in record("retrieval-servers")["sides"].items():
        lines.append(
            f"| {name} | {_short(own['least_ms'])} | {own['recall']:.2f} | {own['fewest']} "
            f"| {own['median']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _short(ms: float) -> str:
    return f"{ms:.2f}" if ms < 9.995 else f"{ms:.1f}"


def vectors() -> str:
    """What stands for the items: the embedding, latent vectors, both."""
    lines = [
        "| log | encoder | vectors | NDCG@10 | difference to the embedding | index | building |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in record("retrieval-vectors")["runs"]:
        log = DATASETS.get(run["dataset"], run["dataset"])
        for row in run["rows"]:
            low, high = row["ndcg@10_interval"]
            apart = row["difference"]
            told = ""
            if row["vectors"] != "embedding":
                told = f"{apart['mean']:+.4f} ({apart['interval'][0]:+.4f} to {apart['interval'][1]:+.4f})"
            kind = row["vectors"] + (", local" if row["aggregate"] == "local" else "")
            lines.append(
                f"| {log} | {run['encoder']}, {run['epochs']} epochs | {kind} "
                f"| {row['ndcg@10']:.4f} ({low:.4f} to {high:.4f}) | {told} | {row['bytes'] / 1e6:.1f} MB "
                f"| {row['build_seconds']:.1f} s |"
            )
    return "\n".join(lines) + "\n"


def latency() -> str:
    """The fastest setting of each kind that finds 95% of the ten best, against a bare scan."""
    lines = [
        "| items | vectors | kind, setting | recall@10 | ms | bare flat, ms | times faster |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = record("retrieval-recall-latency")
    found = {
        (e["items"], e["vectors"], e["name"]): e for e in whole["fastest_at_recall_0.95"] if e["k"] == 10
    }
    rows = []
    for curve in whole["curves"]:
        place = (curve["items"], curve["vectors"], curve["name"])
        name = {"hnsw": "hnsw, M 32", "hnsw-16": "hnsw, M 16"}.get(curve["name"], curve["name"])
        start = f"| {curve['items']:,} | {curve['vectors']} | {name}"
        if row := found.get(place):
            setting = ", ".join(f"{key} {value}" for key, value in row["setting"].items())
            times = f"{row['p50_ms']:.2f} | {row['flat_p50_ms']:.2f} | {row['times_faster']['median']:.1f}"
            rows.append((*place[:2], row["p50_ms"], f"{start}, {setting} | {row['recall']:.3f} | {times} |"))
        else:
            most = max(point["k10"]["recall"] for point in curve["points"])
            rows.append((*place[:2], math.inf, f"{start} | ends at {most:.3f} | | | |"))
    return "\n".join([*lines, *(row[-1] for row in sorted(rows))]) + "\n"


TRAINING_RECORDS = {"peers-sasrec-ml-1m": "ml-1m", "peers-sasrec-beauty": "amazon-beauty-5core"}
PEERS = {
    "recbole": "RecBole `SASRec`",
    "rectools": "RecTools `SASRecModel`",
    "rectools-fast": "RecTools `FlatSASRecNet`",
    "rectools-bert4rec": "RecTools `BERT4RecModel`",
    "replay": "RePlay `SasRec`",
    # In a record from before batches were searched.
    "recbole-128": "RecBole `SASRec`",
    "rectools-8": "RecTools `SASRecModel`",
}


def training_peers() -> str:
    """Training rates against the peers', with what says whether they are of use."""
    lines = [
        "| log | peer | length | its batch | processor time an event, peer / ours "
        "| events a second, ours / peer | cores busy, ours and peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for file, log in TRAINING_RECORDS.items():
        for key, pair in record(file)["pairs"].items():
            times, rate, busy = pair["cpu_us_per_event"], pair["ratio"], pair["cores_busy"]
            unit = pair["facts"]["peer"]["batch_unit"]
            lines.append(
                f"| {log} | {PEERS[key]} | {pair['max_length']} | {pair['peer_batch_size']:,} {unit} "
                f"| {times['peer'] / times['ours']:.3g} "
                f"| {rate['median']:.3g} ({rate['min']:.3g} to {rate['max']:.3g}) "
                f"| {busy['ours']:.2f}, {busy['peer']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def clock_errors() -> str:
    """The clock's recurrence and the published buckets against exact Gaussians."""
    lines = [
        "| \u03c3 | asked at | weight there | against exact Gaussian | rounding | 24 buckets against exact |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['sigma_hours']:g} h | {row['hour']} | {row['weight']:.3g} | {row['pooled']:.1%} "
        f"| {row['rounding']:.0e} | {row['buckets']:.0%} |"
        for row in record("clock-kernel")["errors"]
    ]
    return "\n".join(lines) + "\n"


def clock_times() -> str:
    """The clock's recurrence against weighing all pairs."""
    lines = [
        "| events | | recurrence | direct, compiled | exact Gaussian, PyTorch |",
        "|---|---|---|---|---|",
    ]
    for row in record("clock-kernel")["times"]:
        forms = row["forms"]
        times = [
            f"{forms[name]['times_base']['median']:.1f} times ours" if name in forms else "(memory)"
            for name in ("direct", "torch Gaussian")
        ]
        what = "forward, backward" if row["gradients"] else "forward"
        lines.append(
            f"| {row['sequences']} \u00d7 {row['length']:,} | {what} "
            f"| {forms['recurrent']['median_ms']:.0f} ms | {' | '.join(times)} |"
        )
    return "\n".join(lines) + "\n"


QUALITY_RECORDS = {"peers-quality-ml-100k": "ml-100k"}


def peers_quality() -> str:
    """Whole trainings side by side: what each side reached in its budget."""
    lines = [
        "| log | side | length, batch | valid NDCG@10 | test HR@10 / NDCG@10, seen removed | kept | epochs "
        "| training, processor s | events per processor s | peak MiB | evaluation, processor s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for file, log in QUALITY_RECORDS.items():
        for name, side in record(file)["sides"].items():
            tests = [side["test"][seen] for seen in ("removed", "kept")]
            cells = [
                log,
                PEERS.get(name, "ours, SASRec `tuned`"),
                _length_and_batch(side["facts"]),
                f"{side['best']['valid']['removed']['ndcg@10']:.4f}",
                *(f"{test['hr@10']:.4f} / {test['ndcg@10']:.4f}" for test in tests),
                f"{side['epochs']:.1f}",
                f"{side['training']['cpu_seconds']:.0f}",
                f"{side['events_per_cpu_second']:,.0f}",
                f"{side['peak_mib']:.0f}",
                f"{side['evaluation']['cpu_seconds']:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _length_and_batch(facts: Mapping[str, Any]) -> str:
    settings = facts["settings"]
    length = settings.get("encoder", settings)["max_length"]
    size = settings["training"]["batch_events"] if "training" in settings else settings["batch_size"]
    return f"{length}, {size:,} {facts['batch_unit']}"


def peers_costs() -> str:
    """What it took ours to be as good on validation as each peer ever was."""
    lines = [
        "| log | peer | seen | NDCG@10 | processor s: peer, ours | peer / ours | peak MiB: peer, ours "
        "| peer / ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for file, log in QUALITY_RECORDS.items():
        for row in sorted(record(file)["costs"], key=lambda r: r["seen"], reverse=True):
            peer, ours, times = row["peer_needed"], row["ours_needed"], row["times"]
            cells = [log, PEERS[row["peer"]], row["seen"], f"{row['score']:.4f}"]
            for key, figures in (("cpu_seconds", ".1f"), ("peak_mib", ".0f")):
                mine = "not reached" if ours is None else f"{ours[key]:{figures}}"
                cells.append(f"{peer[key]:.0f}, {mine}")
                cells.append("" if times is None else f"{times[key]:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def neighbours() -> str:
    """What neighbours are worth beside plain training, at equal steps and at equal time."""
    lines = [
        "| log | training | steps | processor s | test HR@10 | test NDCG@10 | plain, as many steps (p) "
        "| plain, as long (p) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in record("neighbours")["runs"]:
        for way in run["ways"]:
            cells = [_against(way if "p" in way else {}), _against(way.get("of_time", {}))]
            if way["way"] == LONGEST:
                cells = ["", cells[0]]
            lines.append(
                f"| {run['log']} | {way['way']} | {way['steps']:,} | {way['seconds']:.0f} "
                f"| {way['hr@10']:.4f} | {way['ndcg@10']:.4f} | {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def _against(pair: Mapping[str, float]) -> str:
    return f"{pair['difference']:+.4f} ({pair['p']:.3f})" if pair else ""
