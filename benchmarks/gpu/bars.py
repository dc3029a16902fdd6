"""What a GPU run must show, held against its records: the bar, what was seen, whether it is met."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recsys.benchmarks.gpu.loss_rivals import LIGER
from recsys.benchmarks.gpu.records import DRY
from recsys.benchmarks.gpu.stages import STAGES

__all__ = ["Bar", "bars", "lines"]

Records = Mapping[str, Mapping[str, Any]]
Entry = Mapping[str, Any]

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Bar:
    """One claim."""

    wanted: str
    seen: str
    met: bool | None
    """None where nothing was measured."""


def bars(records: Records) -> list[Bar]:
    """All claims, in the order of the stages; a dry run's records show nothing."""
    real = {name: record for name, record in records.items() if record["chip"] != DRY}
    found = [_tests(real.get("tests"))]
    topk = [
        e for e in _entries(real, "topk") if e["operation"] == "ranking, top k" and e["shape"][:4] == "100 "
    ]
    found.append(_least("top-k, k 100, never slower than torch", 1.0, _searches(topk)))
    large = [e for e in topk if e["events"] >= 64]
    found.append(_least("top-k, k 100, twice torch at 64 to 4,096", 2.0, _searches(large)))
    losses = [e for e in _entries(real, "losses") if e["d_model"] == 64]
    found.append(_least("linear CE, d 64: 3 times Liger", 3.0, _against(losses, lambda name: name == LIGER)))
    wide = [e for e in losses if not e["shape"].endswith(" 10,000 items")]
    others = _against(wide, lambda name: name != LIGER)
    found.append(
        _least("linear CE, d 64, V 10^5 and 10^6: 1.5 times the best of CCE and a tuned loop", 1.5, others)
    )
    found.append(_memory(losses))
    scans = [e for e in _entries(real, "scan") if any("mamba-ssm" in name for name in e["rivals"])]
    jagged = [e for e in scans if not e["shape"].startswith("dense")]
    dense = [e for e in scans if e["shape"].startswith("dense")]
    found.append(_least("scan, jagged: 1.3 times mamba-ssm", 1.3, _against(jagged, _is_mamba)))
    found.append(_least("scan, dense: as fast as mamba-ssm", 1.0, _against(dense, _is_mamba)))
    backward = [e for e in _entries(real, "scan") if e["direction"] == "backward" and "limit" in e]
    found.append(
        _least(
            "scan, backward: 40% of its limit", 0.4, ((_title(e), e["limit"]["fraction"]) for e in backward)
        )
    )
    attention = list(_entries(real, "attention"))
    plain = [e for e in attention if "time bias" not in e["operation"] and e["dtype"] != "float32"]
    found.append(_least("attention: as fast as flash, padded or packed", 1.0, _against(plain, _is_flash)))
    biased = [e for e in attention if "time bias" in e["operation"]]
    found.append(_least("attention with time bias: 3 times FlexAttention", 3.0, _against(biased, _is_flex)))
    moved = [
        e
        for stage in ("others", "scan", "attention")
        for e in _entries(real, stage)
        if e.get("limit", {}).get("by") == "memory"
    ]
    found.append(
        _least("bound by memory: 60% of bandwidth", 0.6, ((_title(e), e["limit"]["fraction"]) for e in moved))
    )
    found.append(_bits(real))
    found += _epochs(list(_entries(real, "epochs")))
    return found


def lines(records: Records) -> list[str]:
    """For people: each stage, then each bar."""
    found = [_state(name, records[name]) for name in STAGES if name in records]
    marks = {True: "met", False: "NOT met", None: "open"}
    return [*found, "", *(f"{marks[bar.met]}: {bar.wanted}: {bar.seen}" for bar in bars(records))]


def _state(name: str, record: Mapping[str, Any]) -> str:
    cases = record["cases"].values()
    failed = sum("error" in case or case.get("passed") is False for case in cases)
    parts = [f"{name}: {len(record['cases'])} cases"]
    if failed:
        parts.append(f"{failed} FAILED")
    if record.get("left_out"):
        parts.append(f"{len(record['left_out'])} left for the next call")
    if not record["finished"]:
        parts.append("not finished")
    if "compiled" in record:
        parts.append(f"compiled in {record['compiled']['seconds']} s")
    if record["chip"] == DRY:
        parts.append("a dry run: no claim")
    return ", ".join(parts)


def _entries(records: Records, stage: str) -> Iterator[Entry]:
    for entry in records.get(stage, {}).get("cases", {}).values():
        if "error" not in entry:
            yield entry


def _tests(record: Mapping[str, Any] | None) -> Bar:
    wanted = "all tests of the kernels pass in one call"
    if record is None or not record["cases"]:
        return Bar(wanted, NOT_MEASURED, None)
    outcomes = [entry["outcome"] for entry in record["cases"].values()]
    seen = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("passed", "skipped", "failed"))
    whole = record["finished"] and record["in_one_call"] and "failed" not in outcomes
    return Bar(wanted, f"{seen}, in {record['calls']} calls", whole)


def _least(wanted: str, bar: float, ratios: Iterable[tuple[str, float]]) -> Bar:
    """A bar that the least of some ratios must reach."""
    found = sorted(ratios, key=lambda pair: pair[1])
    if not found:
        return Bar(wanted, NOT_MEASURED, None)
    enough = sum(ratio >= bar for _, ratio in found)
    title, least = found[0]
    return Bar(wanted, f"{least:.2f} at least ({title}); {enough} of {len(found)}", least >= bar)


def _against(entries: Iterable[Entry], rival: Callable[[str], bool]) -> Iterator[tuple[str, float]]:
    """Of each entry the ratio to the fastest of some rivals."""
    for entry in entries:
        ratios = [r["ratio"]["median"] for name, r in entry["rivals"].items() if rival(name)]
        if ratios:
            yield _title(entry), min(ratios)


def _searches(entries: Iterable[Entry]) -> Iterator[tuple[str, float]]:
    """Of each search the lesser of the ratios on the device and by the clock of who waits."""
    for entry in entries:
        if entry["rivals"]:
            kinds = (entry["rivals"], entry["wall"]["rivals"])
            ratios = [side["ratio"]["median"] for rivals in kinds for side in rivals.values()]
            yield f"batch {entry['events']:,}", min(ratios)


def _memory(losses: list[Entry]) -> Bar:
    wanted = "linear CE, d 64: memory no higher than the least of the others"
    ratios = []
    for entry in losses:
        peaks = dict(entry.get("peak_mib", {}))
        ours = peaks.pop("ours", None)
        if ours and peaks:
            ratios.append((_title(entry), min(peaks.values()) / ours))
    return _least(wanted, 1.0, ratios)


def _bits(records: Records) -> Bar:
    wanted = "the same bits in 20 runs, every kernel"
    seen = [
        (e["same_bits"], _title(e)) for stage in STAGES for e in _entries(records, stage) if "same_bits" in e
    ]
    if not seen:
        return Bar(wanted, NOT_MEASURED, None)
    different = [title for same, title in seen if not same]
    first = f", first {different[0]}" if different else ""
    return Bar(wanted, f"{len(seen) - len(different)} of {len(seen)} cases{first}", not different)


def _epochs(entries: list[Entry]) -> Iterator[Bar]:
    wanted = "an epoch of every encoder on ML-1M's shape: 2 s and 2 GB at most"
    if not entries:
        yield Bar(wanted, NOT_MEASURED, None)
        return
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for entry in entries:
        key = entry["encoder"], entry["log"]
        seen = entry["epoch_s"]["median"], entry["peak_memory_mib"] * 2**20 / 1e9
        best[key] = min(best.get(key, seen), seen)
    seen_all = "; ".join(f"{e} on {log} {s:.2f} s, {gb:.2f} GB" for (e, log), (s, gb) in best.items())
    yield Bar(wanted, seen_all, all(s <= 2 and gb <= 2 for s, gb in best.values()))


def _title(entry: Entry) -> str:
    shape = entry["shape"].split(" (")[0]
    return f"{entry['operation']} {entry['direction']}, {shape}, d {entry['d_model']}, {entry['dtype']}"


def _is_mamba(name: str) -> bool:
    return "mamba-ssm" in name


def _is_flash(name: str) -> bool:
    return "Flash" in name or name == "SDPA, already padded" or "nested" in name


def _is_flex(name: str) -> bool:
    return "FlexAttention" in name
