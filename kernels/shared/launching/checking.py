"""Make the table of compiled kernels, and check one against the kernels of today."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys.kernels.shared.launching.compile_pool import compile_all, recorded, spread
from recsys.kernels.shared.launching.machine_code import Resources
from recsys.kernels.shared.launching.table import Key, Row, differences, faults, read_table, row_of, seal

__all__ = ["Outcome", "check_table", "make_rows", "triton_version"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows of the kernels of today, how many of them were compiled now, and what is wrong."""

    rows: Sequence[Row]
    compiled: int
    problems: Sequence[str]


def triton_version() -> str:
    """Version of the installed Triton."""
    import triton

    return str(triton.__version__)


def make_rows(known: str | None, *, processes: int, progress: Progress, whole: bool = False) -> Outcome:
    """Compile every launch that ships, for every chip.

    Args:
        known: text of an earlier table; its rows are kept where digest and Triton's version still fit.
        processes: how many compile at a time.
        progress: told how far it is.
        whole: compile all, whatever the earlier table holds.

    Raises:
        LookupError: a configuration is launched by no compile case.
        ValueError: `known` is not a table.
    """
    launches = recorded()
    rows: dict[Key, Row] = {}
    if known is not None and not whole:
        version, old = read_table(known)
        if version == triton_version():
            rows = {
                row.key: row
                for row in old
                if row.key in launches
                and seal(row.key, launches[row.key], row.registers, row.spills, row.shared) == row.digest
            }
    wanted = [key for key in sorted(launches, key=Key.order) if key not in rows]
    problems = []
    results = compile_all(wanted, processes, lambda done: progress("compiled", done, len(wanted)))
    for key, result in results if wanted else ():
        if isinstance(result, Resources):
            rows[key] = row_of(key, launches[key], result)
        else:
            problems.append(f"{key.name}: does not compile: {result}")
    ordered = sorted(rows.values(), key=lambda row: row.key.order())
    return Outcome(ordered, len(wanted), [*problems, *faults(ordered)])


def check_table(text: str, *, processes: int, progress: Progress, whole: bool = False) -> Outcome:
    """Check a committed table: no fault in it, and it describes the kernels of today.

    Rows are compared by digest, which costs no compilation; one launch of each kernel, the chips taking
    turns, is compiled and its figures compared.

    Args:
        text: the table.
        processes: how many compile at a time.
        progress: told how far it is.
        whole: compile every launch and compare.

    Raises:
        LookupError: a configuration is launched by no compile case.
        ValueError: `text` is not a table.
    """
    version, rows = read_table(text)
    launches = recorded()
    problems = faults(rows) + differences(rows, launches)
    if version != triton_version():
        problems.append(f"the table was made with Triton {version}, this is {triton_version()}")
        return Outcome(rows, 0, problems)
    known = {row.key: row for row in rows}
    there = [key for key in launches if key in known]
    wanted = sorted(there, key=Key.order) if whole else spread(there)
    results = compile_all(wanted, processes, lambda done: progress("compiled", done, len(wanted)))
    for key, result in results if wanted else ():
        row = known[key]
        if isinstance(result, str):
            problems.append(f"{key.name}: does not compile: {result}")
            continue
        found = (result.registers, result.spills, result.shared)
        if found != (row.registers, row.spills, row.shared):
            problems.append(
                f"{key.name}: compiled now it takes {found[0]} registers, {found[1]} bytes of spills and "
                f"{found[2]} of shared memory; the table says {row.registers}, {row.spills} and {row.shared}"
            )
            problems += faults([row_of(key, launches[key], result)])
    return Outcome(rows, len(wanted), list(dict.fromkeys(problems)))
