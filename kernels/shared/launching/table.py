"""The table of compiled kernels: one row for each launch and chip, with what its machine code takes.

A row's digest covers the kernel's source, the launch and the figures: a row whose digest still fits the
source of today stands as it was compiled, and only the others have to be compiled again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys.kernels.shared.launching.machine_code import ARCHITECTURES, SHARED_LIMITS, Resources
from recsys.kernels.shared.launching.recording import Launch
from recsys.kernels.shared.launching.sources import source_digest

__all__ = ["Key", "Row", "differences", "faults", "key_of", "read_table", "row_of", "seal", "write_table"]


@dataclass(frozen=True, slots=True)
class Key:
    """What tells one row from another."""

    operation: str
    kernel: str
    chip: str
    types: str
    """Arguments of the kernel: "x:*bf16/16 n_events:i32"; /16 where known to be a multiple of 16."""
    constants: str
    """Compile-time arguments as JSON with sorted names."""
    num_warps: int
    num_stages: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.operation} {self.kernel} on {self.chip} with {self.types} {self.constants}"

    def order(self) -> tuple[Any, ...]:
        """Rows lie by operation, kernel, chip from the oldest, then the rest."""
        chip = ARCHITECTURES.index(self.chip) if self.chip in ARCHITECTURES else len(ARCHITECTURES)
        return (self.operation, self.kernel, chip, *asdict(self).values())


@dataclass(frozen=True, slots=True)
class Row:
    """One launch, what its machine code takes, and the digest of both and of the kernel's source."""

    key: Key
    registers: int
    spills: int
    shared: int
    digest: str


def key_of(operation: str, launch: Launch, architecture: str) -> Key:
    """Describe a recorded launch."""
    types = " ".join(
        f"{name}:{kind}{'/16' if name in launch.aligned else ''}"
        for name, kind in launch.signature
        if kind != "constexpr"
    )
    constants = json.dumps({name: _plain(value) for name, value in launch.constants}, sort_keys=True)
    return Key(operation, launch.name, architecture, types, constants, launch.num_warps, launch.num_stages)


def row_of(key: Key, launch: Launch, resources: Resources) -> Row:
    """Put a compiled launch into a row."""
    figures = (resources.registers, resources.spills, resources.shared)
    return Row(key, *figures, seal(key, launch, *figures))


def seal(key: Key, launch: Launch, registers: int, spills: int, shared: int) -> str:
    """Return the digest that a row with these figures must bear while the kernel's source is as it is."""
    parts = (source_digest(launch.kernel), *asdict(key).values(), registers, spills, shared)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def faults(rows: Iterable[Row]) -> list[str]:
    """Say which rows no chip should run: those that spill, and those that do not fit a chip."""
    found = []
    for row in rows:
        if row.spills:
            found.append(f"{row.key.name}: spills {row.spills} bytes per thread to slow memory")
        limit = SHARED_LIMITS.get(row.key.chip)
        if limit is not None and row.shared > limit:
            found.append(f"{row.key.name}: takes {row.shared} bytes of shared memory, {limit} is the limit")
    return found


def differences(rows: Iterable[Row], launches: Mapping[Key, Launch]) -> list[str]:
    """Say where a table does not describe the launches of today: missing, extra and different rows."""
    found, known = [], {}
    for row in rows:
        if row.key in known:
            found.append(f"{row.key.name}: is in the table twice")
        known[row.key] = row
    for key, launch in launches.items():
        if key not in known:
            found.append(f"{key.name}: is not in the table")
            continue
        row = known[key]
        if seal(key, launch, row.registers, row.spills, row.shared) != row.digest:
            found.append(f"{key.name}: the kernel's source or the row is not what was compiled")
    found += [f"{key.name}: is in the table and is launched no more" for key in known if key not in launches]
    return found


def write_table(version: str, rows: Iterable[Row]) -> str:
    """Return the table as JSON, a row on each line, in a fixed order."""
    lines = [
        json.dumps({**asdict(row.key), "constants": json.loads(row.key.constants), **_figures(row)})
        for row in sorted(rows, key=lambda row: row.key.order())
    ]
    body = ",\n".join(f"  {line}" for line in lines)
    return f'{{\n "triton": {json.dumps(version)},\n "rows": [\n{body}\n ]\n}}\n'


def read_table(text: str) -> tuple[str, list[Row]]:
    """Return the version of Triton and the rows of a table.

    Raises:
        ValueError: the text is not such a table.
    """
    try:
        table = json.loads(text)
        rows = []
        for entry in table["rows"]:
            figures = {name: entry.pop(name) for name in ("registers", "spills", "shared", "digest")}
            entry["constants"] = json.dumps(entry["constants"], sort_keys=True)
            rows.append(Row(Key(**entry), **figures))
        return str(table["triton"]), rows
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a table of compiled kernels ({error})") from None


def _figures(row: Row) -> dict[str, Any]:
    return {
        "registers": row.registers,
        "spills": row.spills,
        "shared": row.shared,
        "digest": row.digest,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
