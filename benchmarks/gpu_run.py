"""Everything there is to know of a GPU in one call of under nine minutes: ``make gpu``.

    python -m recsys.benchmarks.gpu_run --out benchmarks/results/gpu --datasets .carry

Tests of the kernels on the device, every comparison with its roofline, exact search among a million items
(and FAISS's GPU indexes, where they are), a short training run of each encoder; each stage ends in its own
time. Needs PyTorch with CUDA, Triton, numba, numpy, pytest and matplotlib, and installs nothing. Writes a
log, JSON, plots and a summary, which is printed last.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.files import write_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Stage:
    """One program and the seconds it may take."""

    name: str
    arguments: tuple[str, ...]
    seconds: int


def stages(out: Path, datasets: Path, only: str | None = None) -> list[Stage]:
    """The stages in order; their limits add up to under nine minutes."""
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob("test_*_triton.py"))
    count = max(2, min(14, (os.cpu_count() or 2) - 2))
    workers = ("-n", str(count)) if importlib.util.find_spec("xdist") else ()
    pytest = ("-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "--durations=10", *workers)
    found = [
        # Compiling for many shapes takes longer than running: a process for nearly every core shares the GPU.
        Stage("tests", (*pytest, *tests, "tests/kernels/test_on_device.py"), 200),
        Stage(
            "kernels",
            (
                "-m",
                "recsys.benchmarks.kernels",
                *("--device", "cuda", "--seconds", "135"),
                *("--plots", str(out), "--out", str(out / "kernels.json")),
            ),
            170,
        ),
        Stage(
            "retrieval",
            ("-m", "recsys.benchmarks.retrieval.gpu", "--out", str(out / "retrieval-gpu.json")),
            45,
        ),
    ]
    prepared = sorted(path.parent for path in datasets.glob("*/meta.json"))
    each = 120 // max(1, len(prepared))
    # Small steps would time launches: sixteen thousand events fill a GPU.
    program = (
        "-m",
        "recsys.benchmarks.training",
        "--device",
        "cuda",
        "--epochs",
        "3",
        "--batch-events",
        "16384",
    )
    if not prepared:
        made = ("--users", "6000", "--out", str(out / "training.json"))
        found.append(Stage("training", (*program, *made), each))
    for folder in prepared:
        chosen = ("--store", str(folder), "--out", str(out / f"training-{folder.name}.json"))
        found.append(Stage(f"training on {folder.name}", (*program, *chosen), each))
    return [stage for stage in found if only is None or stage.name.split()[0] in only.split(",")]


def run_stage(stage: Stage, log: Path) -> dict[str, Any]:
    """Run a stage with its output in the log; what outlives its time is ended with all its children."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n=== {stage.name} ({stage.seconds} s at most)\n")
        file.flush()
        process = subprocess.Popen(
            [sys.executable, *stage.arguments],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(stage.seconds)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {
        "stage": stage.name,
        "result": "out of time" if code is None else "passed" if code == 0 else f"failed with {code}",
        "seconds": round(time.perf_counter() - started, 1),
        "limit": stage.seconds,
    }


def summary(records: list[dict[str, Any]], out: Path) -> list[str]:
    """The stages, and what their files say."""
    from recsys.benchmarks.report import lines

    found = [f"{r['stage']}: {r['result']} in {r['seconds']} s of {r['limit']}" for r in records]
    for path in sorted(out.glob("*.json")):
        if path.name != "summary.json":
            found += ["", f"{path.name}:", *lines(json.loads(path.read_text(encoding="utf-8")))]
    return found


def main() -> int:
    """Run all stages, print the summary; 0 if all passed, 1 if one did not, 2 without a GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.gpu_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--out", type=Path, default=default, help="folder to write (default: $OUT)")
    parser.add_argument("--datasets", type=Path, default=ROOT / ".carry", help="folder of prepared datasets")
    parser.add_argument("--only", help="stages of tests, kernels, training, with commas between")
    options = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        print("Error: PyTorch finds no GPU here; recsys bench kernels times the CPU", file=sys.stderr)
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.write_text(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n", encoding="utf-8")
    records = []
    for stage in stages(out, options.datasets, options.only):
        records.append(run_stage(stage, log))
        print(f"{stage.name}: {records[-1]['result']}, {records[-1]['seconds']} s", flush=True)
        write_json(out / "summary.json", {"gpu": torch.cuda.get_device_name(), "stages": records})
    failed = [record for record in records if record["result"] != "passed"]
    if failed:
        print("".join(log.read_text(encoding="utf-8", errors="replace")[-6_000:]))
    print("\n".join(summary(records, out)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
