"""Tables of what the service reaches, from the records of benchmarks/serving."""

from collections.abc import Mapping
from typing import Any

from recsys.benchmarks.folders import RECORDS
from recsys.errors import DataError
from recsys.files import read_json

__all__ = ["batches", "faults", "table"]

FOLDER = RECORDS / "serving"


def table() -> str:
    """A row for each line that was measured: what was aimed at and what was reached."""
    lines = _record("table", "lines")
    rows = ["| what | aim | reached | other work on the machine |", "|---|---|---|---|"]
    for name, entry in lines.items():
        told = _TOLD.get(name, _at)(entry["found"])
        rows.append(f"| {entry['what']} | {entry['aim']} | {told} | {_load(entry)} |")
    return "\n".join([*_made(lines), "", *rows]) + "\n"


def batches() -> str:
    """Requests a second by encoder, layout of threads and processes, and batch."""
    encoders = _record("batching", "encoders")
    sizes = list(next(iter(next(iter(encoders.values()))["requests_per_s"].values())))
    rows = [
        f"| encoder | layout | {' | '.join(f'batch {size}' for size in sizes)} |",
        f"|---|---|{'---|' * len(sizes)}",
    ]
    for name, entry in encoders.items():
        for layout, cells in entry["requests_per_s"].items():
            told = " | ".join(f"{cells[size]['median']:,.0f}" for size in sizes)
            rows.append(f"| {name} | {layout} | {told} |")
    return "\n".join([*_made(encoders), "", *rows]) + "\n"


def faults() -> str:
    """A row for each way in which the service was broken on purpose."""
    kills, swaps = _record("kills", "kills"), _record("swaps", "loads")
    soaks, ways = _record("soak", "soaks"), _record("abuse", "ways")
    rows = [
        "| what was done | what came of it | other work on the machine |",
        "|---|---|---|",
        *(f"| {_killed(entry)} | {_load(entry)} |" for entry in kills.values()),
        *(f"| {_swapped(entry['found'])} | {_load(entry)} |" for entry in swaps.values()),
        *(f"| {_soaked(entry)} | {_load(entry)} |" for entry in soaks.values()),
        *(
            f"| {_ABUSES[name].format(entry['connections'])} | {_abused(entry)} | {_load(entry)} |"
            for name, entry in ways.items()
        ),
    ]
    return "\n".join([*_made({**kills, **swaps, **soaks, **ways}), "", *rows]) + "\n"


_ABUSES = {
    "idle": "{:,} connections that send nothing",
    "half": "{:,} connections with half of a head",
    "slow-head": "{:,} connections, a byte of the head each second",
    "slow-body": "{:,} connections, a byte of the body each second",
    "slow-read": "{:,} connections that ask for a file and never read it",
}


def _killed(found: Mapping[str, Any]) -> str:
    rounds = found["rounds"]
    wrong = found["lost"] + found["invented"] + found["damaged"] + found["answers_without"]
    return (
        f"`kill -9` of a worker {rounds['worker']} times and of all {rounds['all']} times, while "
        f"{found['clients']} clients send events | {found['acknowledged']:,} acknowledged, "
        f"{found['lost']} lost, {found['invented']} invented; {found['answers']:,} answers, "
        f"{found['answers_without']} without an acknowledged event"
        f"{'' if wrong else '; the file was whole each time'}"
    )


def _swapped(found: Mapping[str, Any]) -> str:
    failed, wrong = (found["swapped"][name] for name in ("failed", "wrong"))
    return (
        f"{found['swaps']} swaps of a model under load | of {found['swapped']['requests']:,} requests "
        f"{failed} failed and {wrong} had a wrong answer; p99 {found['p99_ratio']:.2f} times that of before"
    )


def _soaked(found: Mapping[str, Any]) -> str:
    return (
        f"{found['minutes']:g} minutes at {found['rate']:.0f} requests/s | {found['failed']} failed; "
        f"memory {found['growth']:+.1%} once caches had filled; p99 {found['p99_ms']['median']:.0f} ms "
        "in the median"
    )


def _abused(found: Mapping[str, Any]) -> str:
    alone, beside = (found[name]["latency"] for name in ("by_itself", "beside"))
    return (
        f"a good client: {found['beside']['failed']} requests failed, p99 {beside['p99_ms']:,.0f} ms (before "
        f"{alone['p99_ms']:,.0f}); memory {found['memory_grew_mib']:+.0f} MiB; "
        f"{found['descriptors_left']} connections left"
    )


def _record(name: str, key: str) -> Mapping[str, Any]:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise DataError(f"{path}: there is no record; make one with: make serve-bench")
    found: Mapping[str, Any] = read_json(path)[key]
    return found


def _made(entries: Mapping[str, Any]) -> list[str]:
    machines = {f"{each['machine']['cpu']}, {each['machine']['cores']} cores" for each in entries.values()}
    days = sorted({each["utc"][:10] for each in entries.values()})
    return [f"{'; '.join(sorted(machines))}; {' to '.join(dict.fromkeys((days[0], days[-1])))}:"]


def _load(entry: Mapping[str, Any]) -> str:
    return f"load average {entry['machine']['load_average'][0]:.1f}"


def _latency(found: Mapping[str, Any]) -> str:
    times = found["latency"]
    return f"p50 {times['p50_ms']:.1f}, p90 {times['p90_ms']:.1f}, p99 {times['p99_ms']:.1f} ms"


def _failed(found: Mapping[str, Any]) -> str:
    failed, wrong = found["failed"], found["wrong"]
    return (f", {failed:.0f} failed" if failed else "") + (f", {wrong:.0f} wrong" if wrong else "")


def _at(found: Mapping[str, Any]) -> str:
    return f"{found['good_per_s']:,.0f}/s, {_latency(found)}{_failed(found)}"


def _history(found: Mapping[str, Any]) -> str:
    told = []
    for workers, one in found.items():
        kept = [step for step in one["steps"] if step["kept"]]
        at = f" ({_latency(kept[-1])})" if kept else ""
        told.append(f"{one['highest_per_s']:,.0f}/s on {workers.removeprefix('workers_')} worker(s){at}")
    return "; ".join(told)


def _events(found: Mapping[str, Any]) -> str:
    offered = (f"{100 * one['good_per_s']:,.0f}/s ({_latency(one)}{_failed(one)})" for one in found.values())
    return "; ".join(offered)


def _overload(found: Mapping[str, Any]) -> str:
    refused = found.get("refused", {})
    slow = (
        f"refusals in p50 {refused['p50_ms']:.1f}, p99 {refused['p99_ms']:.1f} ms"
        if refused
        else "no refusal"
    )
    return (
        f"{found['share_of_peak']:.0%} of the peak of {found['peak_per_s']:,.0f}/s, {slow}, "
        f"recovery in {found['recovery_s']:.1f} s"
    )


def _cold(found: Mapping[str, Any]) -> str:
    two = found["workers_2"]
    return (
        f"{found['cold_s']:.1f} s, {found['memory_mib']:,.0f} MiB; "
        f"2 workers {two['cold_s']:.1f} s, {two['memory_mib']:,.0f} MiB"
    )


_TOLD = {"history": _history, "events": _events, "overload": _overload, "cold": _cold}
