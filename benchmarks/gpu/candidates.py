"""Configurations that a kernel might have: neighbours of a committed one, and which of them a chip runs."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from recsys.errors import ArgumentError
from recsys.kernels.shared.launching.compile_pool import compile_each
from recsys.kernels.shared.launching.configs import Table, read_table, trying
from recsys.kernels.shared.launching.machine_code import ARCHITECTURES, SHARED_LIMITS, compile_launch
from recsys.kernels.shared.launching.recording import Launch, record_launches

__all__ = ["Row", "compile_candidates", "label_of", "neighbours", "rewritten", "rows_of", "with_row"]

WARPS = (1, 2, 4, 8, 16)
MOST_STAGES = 5

Configuration = dict[str, Any]
"""The blocks by name, num_warps and num_stages."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an operation's table that is to be tuned."""

    operation: str
    kernel: str
    chip: str
    place: int
    """Among the chip's rows."""
    when: str
    """As JSON."""
    committed: str
    """Its configuration as JSON."""

    @property
    def title(self) -> str:
        """For records and people."""
        return f"{self.operation}/{self.kernel} {self.when}"


def rows_of(name: str, chip: str) -> list[Row]:
    """The rows of a kernel, written OPERATION/KERNEL, in the table of a chip.

    Raises:
        ArgumentError: there is no such operation, kernel or chip.
    """
    operation, _, kernel = name.partition("/")
    try:
        table = read_table(operation)
    except OSError:
        raise ArgumentError(f"{name!r}: {operation!r} has no table of configurations; see kernels/") from None
    if chip not in table:
        raise ArgumentError(f"kernels/{operation}/configs.json has no {chip}: choose of {', '.join(table)}")
    found = [
        Row(
            operation,
            kernel,
            chip,
            place,
            json.dumps(row.get("when", {})),
            json.dumps({**row["blocks"], "num_warps": row["num_warps"], "num_stages": row["num_stages"]}),
        )
        for place, row in enumerate(table[chip])
        if row["kernel"] == kernel
    ]
    if not found:
        kernels = dict.fromkeys(row["kernel"] for row in table[chip])
        raise ArgumentError(f"{name!r}: kernels/{operation} has {', '.join(kernels)}")
    return found


def neighbours(committed: Configuration, choices: Mapping[str, Sequence[int]]) -> list[Configuration]:
    """The committed configuration first, then all that differ from it in one setting or in two.

    Args:
        committed: see `Configuration`.
        choices: values of a setting; of those left out, warps and sizes that begin with BLOCK_ take half and
            twice theirs, stages one less and one more, and others stay: they have meanings of their own.

    Raises:
        ArgumentError: the configuration has no such setting.
    """
    unknown = [name for name in choices if name not in committed]
    if unknown:
        raise ArgumentError(f"setting {unknown[0]!r} is not the kernel's: it has {', '.join(committed)}")
    values = {
        name: [value for value in choices.get(name, _around(name, now)) if value != now]
        for name, now in committed.items()
    }
    found = [committed]
    for count in (1, 2):
        for names in combinations(committed, count):
            changes = product(*(values[name] for name in names))
            found += [committed | dict(zip(names, chosen, strict=True)) for chosen in changes]
    return found


def _around(name: str, now: int) -> list[int]:
    if name == "num_warps":
        return [n for n in (now // 2, 2 * now) if n in WARPS]
    if name == "num_stages":
        return [n for n in (now - 1, now + 1) if 1 <= n <= MOST_STAGES]
    return [now // 2, 2 * now] if name.startswith("BLOCK_") and now > 1 else []


def label_of(configuration: Configuration) -> str:
    """One line."""
    return " ".join(f"{name}={value}" for name, value in configuration.items())


def with_row(row: Row, configuration: Configuration) -> Table:
    """The operation's table with one row changed."""
    table = {chip: list(rows) for chip, rows in read_table(row.operation).items()}
    table[row.chip][row.place] = {**table[row.chip][row.place], **_fields(configuration)}
    return table


def _fields(configuration: Configuration) -> dict[str, Any]:
    own = ("num_warps", "num_stages")
    blocks = {name: value for name, value in configuration.items() if name not in own}
    return {"blocks": blocks, **{name: configuration[name] for name in own}}


def rewritten(text: str, row: Row, configuration: Configuration, chip_name: str) -> str:
    """The text of a configs.json with one row changed and marked; all other lines stay as they are.

    Args:
        text: of the file, a row on each line.
        row: whose configuration it is.
        configuration: of the row.
        chip_name: the GPU that chose it.
    """
    lines, chip, place = text.splitlines(keepends=True), None, -1
    for number, line in enumerate(lines):
        bare = line.strip()
        if bare.startswith('"sm_'):
            chip, place = bare.split('"')[1], -1
        elif bare.startswith("{") and chip is not None:
            place += 1
            if (chip, place) == (row.chip, row.place):
                old = json.loads(bare.rstrip(","))
                new = json.dumps({**old, **_fields(configuration), "tuned_on": chip_name})
                lines[number] = line.replace(bare, new + ("," if bare.endswith(",") else ""))
    return "".join(lines)


def compile_candidates(
    row: Row, configurations: Sequence[Configuration], processes: int | None = None
) -> Iterator[tuple[Configuration, dict[str, Any]]]:
    """Compile candidates, which needs no GPU.

    Args:
        row: whose they are.
        configurations: the candidates.
        processes: how many compile at a time; None is one for each core but two.

    Yields:
        A candidate, with the registers, spills and shared memory of the worst of its launches, or "unfit"
        with the reason why no chip should run it.
    """
    count = processes or max(1, (os.cpu_count() or 3) - 2)
    items = [(row, json.dumps(configuration)) for configuration in configurations]
    for (_, text), result in compile_each(_compile_candidate, items, count):
        yield json.loads(text), {"unfit": result} if isinstance(result, str) else result


def _compile_candidate(item: tuple[Row, str]) -> dict[str, Any]:
    row, text = item
    try:
        wanted = _launches(row, json.loads(row.committed))
        found = _launches(row, json.loads(text))
        # Launches of other rows are the same under both tables.
        changed = [launch for launch in found if launch not in wanted] or list(found)
        made = [compile_launch(launch, row.chip) for launch in changed]
    except Exception as error:  # the compiler's errors share no class
        return {"unfit": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    worst = {
        "registers": max(resources.registers for resources in made),
        "spills": max(resources.spills for resources in made),
        "shared": max(resources.shared for resources in made),
    }
    if worst["spills"]:
        return {**worst, "unfit": f"spills {worst['spills']} bytes a thread"}
    if row.chip in ARCHITECTURES and worst["shared"] > SHARED_LIMITS[row.chip]:
        return {**worst, "unfit": f"takes {worst['shared']} bytes of shared memory"}
    return worst


def _launches(row: Row, configuration: Configuration) -> dict[Launch, None]:
    import importlib

    cases = importlib.import_module(f"recsys.kernels.{row.operation}.compile_cases")
    with trying(row.operation, with_row(row, configuration)), record_launches(row.chip) as recorder:
        cases.record_all()
    return recorder.launches
