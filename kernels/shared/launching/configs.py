"""Launch configurations: a small committed table per operation, read by chip, kernel and static sizes.

`kernels/<operation>/configs.json` maps a chip ("sm_90") to rows; the first row that fits is taken:

    {"kernel": "forward", "when": {"dtype": "float16", "head_size": 64}, "blocks": {"BLOCK_M": 64},
     "num_warps": 4, "num_stages": 2}

A row that a GPU chose (`recsys.benchmarks.gpu.tune`) says which: "tuned_on": "NVIDIA H200".

In `when`, text must be equal, a number is an upper bound, and a list names all values that fit; what is
left out fits everything. Keys are properties of the model or of one sequence (type, width, length bucket),
never of the batch: the number of events or sequences changes neither the configuration nor, with it, the bits
of a result. Only the prefilter of top-k goes by the rows of a call too, for no bit of a result comes from it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Config", "Table", "choose_config", "read_configs", "read_table", "trying"]

_KERNELS = Path(__file__).parents[2]

Table = Mapping[str, Sequence[Mapping[str, Any]]]
"""Chip -> rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How one kernel is compiled and launched."""

    blocks: Mapping[str, int] = field(default_factory=dict)
    """Values of the kernel's block-size parameters, by name."""
    num_warps: int = 4
    """Warps of a program."""
    num_stages: int = 2
    """Depth of the software pipeline of its loops."""


_tried: dict[str, tuple[Table, list[Config]]] = {}
"""By operation the table that is tried, and what launches took of it."""


def read_table(operation: str) -> Table:
    """The committed table of an operation, as it lies in its file."""
    table: Table = json.loads((_KERNELS / operation / "configs.json").read_text(encoding="utf-8"))
    return table


@contextmanager
def trying(operation: str, table: Table) -> Iterator[list[Config]]:
    """Let an operation have another table inside a `with` block, in all threads: what a tuning loop tries.

    Yields:
        The configurations that are taken, each once for every combination of sizes.
    """
    taken: list[Config] = []
    _forget()
    _tried[operation] = table, taken
    try:
        yield taken
    finally:
        del _tried[operation]
        _forget()


def _forget() -> None:
    read_configs.cache_clear()
    _choose.cache_clear()


@cache
def read_configs(operation: str, architecture: str) -> tuple[tuple[str, Mapping[str, Any], Config], ...]:
    """Return the rows (kernel, when, config) of an operation for a chip.

    A chip that the table does not list takes the rows of the nearest older one that it does, or of the
    oldest.
    """
    tables = _tried[operation][0] if operation in _tried else read_table(operation)
    known = sorted(tables, key=_number)
    older = [name for name in known if _number(name) <= _number(architecture)]
    rows = tables[older[-1] if older else known[0]]
    return tuple(
        (
            row["kernel"],
            row.get("when", {}),
            Config(blocks=row["blocks"], num_warps=row["num_warps"], num_stages=row["num_stages"]),
        )
        for row in rows
    )


@cache
def _choose(operation: str, kernel: str, architecture: str, sizes: tuple[tuple[str, Any], ...]) -> Config:
    known = dict(sizes)
    for name, when, config in read_configs(operation, architecture):
        if name == kernel and all(_fits(known[key], bound) for key, bound in when.items()):
            if operation in _tried:
                _tried[operation][1].append(config)
            return config
    raise LookupError(f"kernels/{operation}/configs.json: no row of {architecture} for {kernel} with {known}")


def choose_config(operation: str, kernel: str, architecture: str, **sizes: int | str) -> Config:
    """Return the first configuration of the table that fits.

    Args:
        operation: name of the operation's folder.
        kernel: name of the kernel in the table.
        architecture: the chip, from `launching.architecture`.
        sizes: what the rows' `when` speaks of: dtype="float32", head_size=64, length=200 and the like.

    Raises:
        LookupError: no row fits: the table is incomplete.
    """
    return _choose(operation, kernel, architecture, tuple(sorted(sizes.items())))


def _fits(value: int | str, bound: int | str | list[int | str]) -> bool:
    if isinstance(bound, list):
        return value in bound
    if isinstance(bound, str) or isinstance(value, str):
        return value == bound
    return value <= bound


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))
