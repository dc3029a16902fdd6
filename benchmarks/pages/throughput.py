"""The table of a throughput run: ours beside its definition and its fastest rival, and other work."""

from collections.abc import Mapping
from typing import Any

from recsys.benchmarks.folders import RECORDS
from recsys.benchmarks.kernels.case import DEFINITION
from recsys.errors import DataError
from recsys.files import read_json

__all__ = ["throughput"]

OURS = "ours"


def throughput() -> str:
    """The newest committed run: least times of processor, of each group a row."""
    paths = sorted((RECORDS / "throughput").glob("*/*.json"))
    if not paths:
        raise DataError(f"{RECORDS / 'throughput'}: holds no run; make one with: make throughput")
    whole = read_json(paths[-1])
    groups: dict[str, dict[str, Any]] = {}
    for entry in whole["benchmarks"]:
        groups.setdefault(entry["group"], {})[_side(entry)] = entry
    machine = whole["machine_info"]
    lines = [
        f"{paths[-1].stem}, commit {whole['commit_info']['id'][:7]}, {machine['cpu']}, "
        f"{machine['threads']} thread, torch {machine['torch']}:",
        "",
        "| work | ms | a second | share of the limit | fastest rival, times ours | definition, times ours |",
        "|---|---|---|---|---|---|",
    ]
    for group, sides in groups.items():
        if OURS in sides:
            lines.append(_kernel(group, sides))
        else:
            lines += [f"| {group}: {side} | {_time_and_rate(entry)} | | | |" for side, entry in sides.items()]
    return "\n".join(lines) + "\n"


def _side(entry: Mapping[str, Any]) -> str:
    params = entry["params"] or {}
    return str(params.get("side") or params.get("encoder") or params.get("kind") or "prepared")


def _kernel(group: str, sides: Mapping[str, Any]) -> str:
    ours = sides[OURS]["stats"]["min"]
    times = {side: entry["stats"]["min"] / ours for side, entry in sides.items() if side != OURS}
    definition = times.pop(DEFINITION, None)
    rival = min(times, key=lambda side: times[side], default=None)
    facts = sides[OURS]["extra_info"]
    cells = [
        _time_and_rate(sides[OURS]),
        f"{facts['fraction_of_limit']:.0%} ({facts['limit']})",
        "" if rival is None else f"{times[rival]:.2f} ({rival})",
        "" if definition is None else f"{definition:.2f}",
    ]
    return f"| {group} | {' | '.join(cells)} |"


def _time_and_rate(entry: Mapping[str, Any]) -> str:
    least, facts = entry["stats"]["min"], entry["extra_info"]
    if "state_steps_per_s" in facts:
        rate = f"{facts['state_steps_per_s'] / 1e9:.2f} G state-steps"
    else:
        rate = f"{facts['events_per_s']:,.0f}"
    return f"{1e3 * least:.3g} | {rate}"
