"""Try configurations of one kernel over its comparisons' shapes, and write the table that is fastest.

    python -m recsys.benchmarks.gpu.tune scan/tasks_backward --compile-only          # before, without a GPU
    python -m recsys.benchmarks.gpu.tune scan/tasks_backward --write           # on it

A candidate differs from the committed configuration in one setting or in two (--set BLOCK_T=1,2,4 names a
setting's values). What spills, or takes more shared memory than the chip has, is left out; what gives other
results is, too. The candidates left take turns; the fastest over all shapes that take the row is proposed
where it is 2% faster. The record, `tune-OPERATION-KERNEL.json`, is written after every row, and
`configs-OPERATION.json` beside it is the table with what was found. After --write: `make compiled`.
"""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from recsys.benchmarks.gpu import topk
from recsys.benchmarks.gpu.candidates import (
    Configuration,
    Row,
    compile_candidates,
    label_of,
    neighbours,
    rewritten,
    rows_of,
    with_row,
)
from recsys.benchmarks.gpu.records import DRY, bundle_back
from recsys.benchmarks.gpu.stage import lost
from recsys.benchmarks.gpu.stages import ROOT, Scale
from recsys.benchmarks.kernels import TOLERANCE, cases_of
from recsys.benchmarks.kernels.case import Case
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.timing import alternate, summarize
from recsys.errors import ArgumentError, RecsysError
from recsys.files import write_json, write_text
from recsys.kernels.shared.backends import prefer_backend
from recsys.kernels.shared.launching.checking import triton_version
from recsys.kernels.shared.launching.configs import read_configs, trying

__all__ = ["best_of", "main", "time_row"]

LEAST_GAIN = 1.02
"""A new configuration must be so many times as fast: less is noise."""


def time_row(
    row: Row,
    candidates: Sequence[Configuration],
    scale: Scale,
    lose: Callable[[Row, Configuration], NoReturn],
) -> list[dict[str, Any]]:
    """Time candidates on every comparison of the operation that takes the row.

    Args:
        row: whose they are.
        candidates: the committed one first.
        scale: where, and how large.
        lose: told of a candidate that broke the GPU's context, and goes on in a new process.

    Returns:
        For each comparison its name, the committed configuration's times, and the others' ratios: how many
        times as long they take. Candidates that fail, or give other results, are named with the reason.
    """
    found = []
    for case in _cases(row.operation, scale):
        ours = case.sides[case.ours]
        if not _takes(row, ours):
            continue
        wanted = _tensors(ours())
        sides: dict[str, Callable[[], Any]] = {}
        refused = {}
        for candidate in candidates:
            side = _under(row, candidate, ours)
            try:
                reason = _refusal(case, side, wanted)
            except _LostError:
                lose(row, candidate)
            if reason is None:
                sides[label_of(candidate)] = side
            else:
                refused[label_of(candidate)] = reason
        if label_of(candidates[0]) not in sides:
            continue
        times = alternate(sides, device=scale.device, seconds=len(sides) * scale.seconds, most=15)
        found.append({"case": case.name, **summarize(times), "refused": refused})
        print(f"{row.title}: {case.name}, {len(sides)} candidates", file=sys.stderr, flush=True)
    return found


def best_of(cases: Sequence[Mapping[str, Any]]) -> tuple[str | None, float]:
    """The candidate that is fastest over all comparisons, and how many times as fast as the committed one.

    Args:
        cases: of `time_row`.

    Returns:
        None and 1.0 where none gains at least `LEAST_GAIN`. What did not run in every comparison is none.
    """
    names = set.intersection(*(set(case["rivals"]) for case in cases)) if cases else set()
    gains = {
        name: math.exp(-sum(math.log(case["rivals"][name]["ratio"]["median"]) for case in cases) / len(cases))
        for name in sorted(names)
    }
    best = max(gains, key=lambda name: gains[name], default=None)
    if best is None or gains[best] < LEAST_GAIN:
        return None, 1.0
    return best, gains[best]


def _cases(operation: str, scale: Scale) -> Iterator[Case]:
    if operation == "ranking":
        return topk.cases(scale)
    return cases_of(operation)(scale.device, scale.dtypes, scale.events)


def _takes(row: Row, side: Callable[[], Any]) -> bool:
    """Whether the side's launches take the row; a first call may make a graph, which does not count."""
    side()
    with trying(row.operation, with_row(row, json.loads(row.committed))) as taken:
        config = read_configs(row.operation, row.chip)[row.place][2]
        side()
        return any(config is other for other in taken)


def _under(row: Row, candidate: Configuration, side: Callable[[], Any]) -> Callable[[], Any]:
    table = with_row(row, candidate)

    def run() -> Any:
        with trying(row.operation, table):
            return side()

    return run


def _refusal(case: Case, side: Callable[[], Any], wanted: list[Tensor]) -> str | None:
    """Why a candidate is not to be timed; it is compiled by this."""
    tolerance = TOLERANCE.get(case.dtype, 0.0)
    try:
        found = _tensors(side())
        apart = [
            float((one.double() - other.double()).norm()) for one, other in zip(found, wanted, strict=True)
        ]
        most = [tolerance * float(other.double().norm()) for other in wanted]
    except Exception as error:
        if lost(torch.device("cuda" if wanted[0].is_cuda else "cpu")):
            raise _LostError from error
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if case.repeatable and not all(a <= b for a, b in zip(apart, most, strict=True)):  # NaN, too
        return f"its result is {max(apart):.1e} apart"
    return None


class _LostError(Exception):
    """A candidate broke the GPU's context: no further call of this process can run."""


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [x for x in result if x is not None]


def _fit(row: Row, options: argparse.Namespace) -> list[Configuration]:
    """The candidates that a chip can run, as this Triton compiled them before or does now."""
    configurations = neighbours(json.loads(row.committed), options.set)[: options.most]
    there = _compiled(row, options)
    missing = [each for each in configurations if label_of(each) not in there]
    for number, (configuration, result) in enumerate(compile_candidates(row, missing), start=1):
        there[label_of(configuration)] = result
        print(f"{row.title}: {number} of {len(missing)} compiled", file=sys.stderr, flush=True)
    _keep_compiled(row, options, there)
    return [each for each in configurations if "unfit" not in there[label_of(each)]]


def _compiled(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """What is known of a row's candidates under this Triton."""
    path = _compiled_file(row, options)
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = known["rows"].get(row.title, {}) if known["triton"] == triton_version() else {}
    return found


def _keep_compiled(row: Row, options: argparse.Namespace, found: dict[str, Any]) -> None:
    path = _compiled_file(row, options)
    known: dict[str, Any] = {"triton": ""}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    rows = known["rows"] if known["triton"] == triton_version() else {}
    write_json(path, {"triton": triton_version(), "rows": {**rows, row.title: found}})


def _compiled_file(row: Row, options: argparse.Namespace) -> Path:
    folder: Path = options.out
    return folder / f"candidates-{row.operation}-{row.kernel}.json"


def _go_on_without(row: Row, candidate: Configuration, options: argparse.Namespace) -> NoReturn:
    """Note that no chip should run a candidate, and begin anew in a fresh process."""
    found = _compiled(row, options)
    found[label_of(candidate)] = {"unfit": "broke the GPU's context"}
    _keep_compiled(row, options, found)
    print(f"{row.title}: {label_of(candidate)} broke the GPU's context", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "recsys.benchmarks.gpu.tune", *sys.argv[1:]])


def _warm(options: argparse.Namespace, rows: int) -> None:
    """Compile for the device in parallel processes: each runs a share of the candidates once."""
    parts = max(1, min(14, (os.cpu_count() or 2) - 2))
    again = [argument for argument in sys.argv[1:] if argument != "--write"]
    program = (sys.executable, "-m", "recsys.benchmarks.gpu.tune", *again)
    running = [subprocess.Popen([*program, "--warm", f"{part}/{parts}"], cwd=ROOT) for part in range(parts)]
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(150 * rows)
        process.kill()
        process.wait()


def _run(options: argparse.Namespace) -> int:
    rows = rows_of(options.kernel, options.chip)
    fits = {} if options.dry else {row.title: _fit(row, options) for row in rows}
    if options.compile_only:
        for row in rows:
            print(f"{row.title}: {len(fits[row.title])} candidates fit {row.chip}")
        return 0
    if options.dry:
        torch.set_num_threads(1)
        scale, name = Scale(torch.device("cpu"), dry=True, seconds=0.0), DRY
        fits = {row.title: neighbours(json.loads(row.committed), options.set)[: options.most] for row in rows}
    elif not torch.cuda.is_available():
        raise ArgumentError("PyTorch finds no GPU here; --compile-only compiles candidates without one")
    else:
        scale, name = Scale(torch.device("cuda", torch.cuda.current_device())), torch.cuda.get_device_name()
        if options.warm is None:
            _warm(options, len(rows))
    body: dict[str, Any] = {
        "benchmark": "tune",
        "kernel": options.kernel,
        "chip": name,
        **stamp(),
        "rows": {},
    }
    operation = rows[0].operation
    source = ROOT / "kernels" / operation / "configs.json"
    text = source.read_text(encoding="utf-8")
    with prefer_backend("triton"):
        for row in rows:
            candidates = fits[row.title]
            if options.warm is not None:
                part, parts = map(int, options.warm.split("/"))
                for case in _cases(operation, scale):
                    for candidate in candidates[part::parts]:
                        with contextlib.suppress(Exception):  # it will be said where it is timed
                            _under(row, candidate, case.sides[case.ours])()
                continue
            cases = time_row(row, candidates, scale, partial(_go_on_without, options=options))
            best, gain = best_of(cases)
            body["rows"][row.title] = {"cases": cases, "best": best, "gain": gain}
            print(f"{row.title}: {best or 'as it is'}, {gain:.2f} times as fast, {len(cases)} comparisons")
            write_json(options.out / f"tune-{operation}-{rows[0].kernel}.json", body)
            if options.dry:
                continue
            for candidate in candidates:
                if label_of(candidate) == best:
                    text = rewritten(text, row, candidate, name)
            write_text(options.out / f"configs-{operation}.json", text)
            bundle_back(options.out)
    if options.write and not options.dry:
        write_text(source, text)
        print(f"{source}: written; now make compiled")
    return 0


def _setting(text: str) -> tuple[str, list[int]]:
    name, _, values = text.partition("=")
    return name, [int(value) for value in values.split(",")]


def main() -> int:
    """Compile or tune; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.gpu.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kernel", help="OPERATION/KERNEL, as in kernels/OPERATION/configs.json")
    parser.add_argument("--chip", default="sm_90", help="whose rows (default: %(default)s)")
    parser.add_argument("--compile-only", action="store_true", help="only compile the candidates, for later")
    parser.add_argument("--set", action="append", default=[], type=_setting, metavar="NAME=1,2,4")
    parser.add_argument("--most", type=int, default=40, help="candidates of a row (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="change kernels/OPERATION/configs.json")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of the records")
    parser.add_argument(
        "--dry", action="store_true", help="tiny shapes in Triton's interpreter; claims nothing"
    )
    parser.add_argument("--warm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.set = dict(options.set)
    try:
        return _run(options)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
