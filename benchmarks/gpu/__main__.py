"""``make gpu``: stages one after the other, each in a process of its own, then what they show.

    python -m recsys.benchmarks.gpu --stages tests,topk --seconds 560

A stage that was cut off, or lost its GPU to a faulty kernel, goes on where its record ends. Where OUT names a
folder, as on a machine that is lent, all records go there in one file, gpu.tar; put into `.carry` it is where
the next machine goes on.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from recsys.benchmarks.gpu.bars import lines
from recsys.benchmarks.gpu.carry import CARRIED
from recsys.benchmarks.gpu.records import BUNDLE, bundle_back, read_records, unbundle
from recsys.benchmarks.gpu.stage import AGAIN
from recsys.benchmarks.gpu.stages import ROOT, STAGES, Stage, chosen
from recsys.benchmarks.processes import exit_code
from recsys.errors import RecsysError
from recsys.files import write_text

__all__ = ["main", "run_process"]

_SPARE = 30
"""Seconds for a stage's imports and a case that began in time."""

_TRIES = 4


def run_process(program: list[str], seconds: float, log: Path, *, interpret: bool = False) -> int | None:
    """Run a program with its output in the log.

    Args:
        program: for Python.
        seconds: after which it is ended, with all its children.
        log: added to.
        interpret: whether Triton's kernels run in its interpreter.

    Returns:
        Its exit code; None if it ran out of time.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n=== {' '.join(program)}\n")
        file.flush()
        process = subprocess.Popen(
            [sys.executable, *program],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return exit_code(process, seconds)


def run_stages(stages: list[Stage], options: argparse.Namespace, out: Path, log: Path) -> bool:
    """Run stages while there is time; returns whether none failed."""
    carried = ("--datasets", str(options.datasets.resolve()))
    common = ["-m", "recsys.benchmarks.gpu.stage"]
    if options.dry:
        names = ",".join(stage.name for stage in stages)
        program = [*common, names, "--dry", "--out", str(out), *carried]
        return run_process(program, options.seconds, log, interpret=True) == 0
    ends, good = time.monotonic() + options.seconds, True
    for stage in stages:
        fresh = ["--fresh"] if options.fresh else []
        for _ in range(_TRIES):
            left = ends - time.monotonic()
            if left < 2 * _SPARE:
                print(f"{stage.name}: no time left for it in this call", flush=True)
                good = False
                break
            started = time.monotonic()
            until = ("--until", str(time.time() + left - _SPARE))
            program = [*common, stage.name, "--out", str(out), *carried, *fresh, *until]
            code = run_process(program, min(left, stage.compiling + stage.seconds + _SPARE), log)
            said = {0: "done", 1: "failures", None: "out of time", AGAIN: "the GPU was lost: again"}
            print(
                f"{stage.name}: {said.get(code, f'exit {code}')}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            good &= code == 0
            fresh = []
            if code != AGAIN:
                break
    return good


def main() -> int:
    """Run, print the summary; 0, 1 if a stage failed or had no time, 2 without a GPU or on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{stage.name:10} {stage.about}" for stage in STAGES.values()),
    )
    parser.add_argument("--stages", help="names with commas between (default: all, in order of worth)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of the records")
    parser.add_argument(
        "--datasets", type=Path, default=CARRIED, help="what was taken along (default: .carry)"
    )
    parser.add_argument("--seconds", type=float, default=560.0, help="of all together (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="measure anew what has a record")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU, which claim nothing")
    options = parser.parse_args()
    try:
        stages = chosen(options.stages)
        out = (options.out / "dry" if options.dry else options.out).resolve()
        out.mkdir(parents=True, exist_ok=True)
        if not options.dry:
            import torch

            if not torch.cuda.is_available():
                print("Error: PyTorch finds no GPU here; --dry runs all stages on the CPU", file=sys.stderr)
                return 2
            if (options.datasets / BUNDLE).exists() and not options.fresh:
                taken = unbundle(options.datasets / BUNDLE, out)
                print(f"Taken from {options.datasets / BUNDLE}: {', '.join(taken) or 'nothing'}", flush=True)
        log = out / "log.txt"
        good = run_stages(stages, options, out, log)
        _finish(out, good)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0 if good else 1


def _finish(out: Path, good: bool) -> None:
    """Draw the roofline, write and print the summary, pack all for the way back."""
    records = read_records(out)
    found = lines(records)
    write_text(out / "summary.txt", "\n".join(found) + "\n")
    back = os.environ.get("OUT")
    compared = [
        entry for record in records.values() for entry in record["cases"].values() if "limit" in entry
    ]
    if compared:
        from recsys.benchmarks.kernels.roofline import plot

        record = max((r for r in records.values() if r.get("limits")), key=lambda record: record["utc"])
        plot(
            {"comparisons": compared, "limits": record["limits"], "machine": record["machine"]},
            Path(back or out),
        )
    if any(record["device"] == "cuda" for record in records.values()):
        bundle_back(out)
    if not good:
        print("".join((out / "log.txt").read_text(encoding="utf-8", errors="replace")[-3_000:]))
    print("\n".join(found))


if __name__ == "__main__":
    sys.exit(main())
