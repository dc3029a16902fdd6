"""What was asked of each model, counted and timed as Triton's extension "statistics" names it.

Counts are of one worker. An execution is one request's rows; the engine may compute several at once.
"""

import time
from dataclasses import dataclass, field
from typing import Any

_COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds of a request's parts, one after the other."""

    compute_input: int
    queue: int
    compute_infer: int
    compute_output: int


@dataclass(slots=True)
class _Duration:
    """A statistic: how often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def described(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


def _durations(*names: str) -> dict[str, _Duration]:
    return {name: _Duration() for name in names}


@dataclass(slots=True)
class _Counted:
    """What is known of a model's version."""

    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    totals: dict[str, _Duration] = field(
        default_factory=lambda: _durations("success", "fail", "queue", *_COMPUTE)
    )
    by_rows: dict[int, dict[str, _Duration]] = field(default_factory=dict)


class Statistics:
    """Statistics of all models of a worker, by name and version."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], _Counted] = {}

    def succeeded(self, name: str, version: str, n_rows: int, timing: Timing) -> None:
        """Count a request that was answered."""
        counted = self._of(name, version)
        counted.inference_count += n_rows
        counted.execution_count += 1
        parts = {part: getattr(timing, part) for part in ("queue", *_COMPUTE)}
        counted.totals["success"].add(sum(parts.values()))
        for part, ns in parts.items():
            counted.totals[part].add(ns)
        batch = counted.by_rows.setdefault(n_rows, _durations(*_COMPUTE))
        for part in _COMPUTE:
            batch[part].add(parts[part])

    def failed(self, name: str, version: str, ns: int) -> None:
        """Count a request that was not."""
        self._of(name, version).totals["fail"].add(ns)

    def described(self, name: str, versions: tuple[str, ...]) -> list[dict[str, Any]]:
        """`model_stats` of a model, one entry for each of its versions."""
        return [
            _described(name, version, self._models.get((name, version), _Counted())) for version in versions
        ]

    def _of(self, name: str, version: str) -> _Counted:
        counted = self._models.setdefault((name, version), _Counted())
        counted.last_inference = time.time_ns() // 1_000_000
        return counted


def _described(name: str, version: str, counted: _Counted) -> dict[str, Any]:
    """An entry of `model_stats`."""
    return {
        "name": name,
        "version": version,
        "last_inference": counted.last_inference,
        "inference_count": counted.inference_count,
        "execution_count": counted.execution_count,
        "inference_stats": {part: duration.described() for part, duration in counted.totals.items()},
        "batch_stats": [
            {"batch_size": n_rows, **{part: duration.described() for part, duration in parts.items()}}
            for n_rows, parts in sorted(counted.by_rows.items())
        ],
    }
