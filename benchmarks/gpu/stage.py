"""Run stages of a GPU run in this process: compile in parallel processes, then measure case by case.

python -m recsys.benchmarks.gpu.stage topk --out build/gpu
"""

import argparse
import contextlib
import gc
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.gpu.carry import add_carried
from recsys.benchmarks.gpu.records import DRY, Record
from recsys.benchmarks.gpu.stages import ROOT, Scale, Stage, chosen, tasks_of
from recsys.errors import RecsysError
from recsys.files import write_json

__all__ = ["AGAIN", "lost", "main", "run_stage"]

AGAIN = 75
"""Exit code of a stage whose GPU was lost to a faulty kernel: a new process goes on behind that case."""


def run_stage(
    stage: Stage,
    out: Path,
    scale: Scale,
    *,
    fresh: bool = False,
    warm: bool = True,
    until: float = math.inf,
) -> int:
    """Run one stage from where its record ends.

    Args:
        stage: which.
        out: folder of the records.
        scale: where, and how large.
        fresh: measure anew what has a record.
        warm: compile beforehand, in parallel processes, unless the stage is dry.
        until: of `time.time`; no case begins later.

    Returns:
        0; 1 if a case failed; `AGAIN`.
    """
    record = Record(out, stage, DRY if scale.dry else torch.cuda.get_device_name(), fresh=fresh)
    record.write()
    if stage.name == "tests":
        from recsys.benchmarks.gpu.kernel_tests import run_tests

        return run_tests(record, scale, min(stage.seconds, until - time.time()))
    if warm and not scale.dry:
        record.note(compiled=_compile(stage, out, scale))
        record.note(limits=scale.limits)
    _note_endless(record)
    ends = min(time.time() + stage.seconds, until)
    left = []
    for task in tasks_of(stage, scale):
        if task.name in record.cases:
            continue
        if time.time() > ends:
            left.append(task.name)
            continue
        record.note(began=task.name)
        try:
            record.keep(task.name, task.measure())
        except Exception as error:
            record.keep(task.name, {"error": _one_line(error)})
            print(f"{stage.name}, {task.name}: {_one_line(error)}", file=sys.stderr, flush=True)
            if lost(scale.device):
                return AGAIN
        del task
        gc.collect()
    record.note(finished=not left, left_out=left, began=None)
    return int(any("error" in entry for entry in record.cases.values()))


def _note_endless(record: Record) -> None:
    """A case that an earlier call began and did not end, with half a minute to spare, is not begun again."""
    began = record.body.get("began")
    if began is not None and began not in record.cases:
        record.keep(began, {"error": "did not end in an earlier call"})


def warm_up(stage: Stage, out: Path, scale: Scale, part: int, parts: int) -> None:
    """Run one share of a stage's tasks once, those without a record: Triton keeps what that compiles."""
    record = Record(out, stage, torch.cuda.get_device_name())
    for i, task in enumerate(tasks_of(stage, scale)):
        if i % parts == part and task.name not in record.cases:
            try:
                task.warm()
            except Exception as error:  # it will be said again where it is measured
                print(f"warming {task.name}: {_one_line(error)}", file=sys.stderr, flush=True)


def _compile(stage: Stage, out: Path, scale: Scale) -> dict[str, Any]:
    """Warm all tasks in parallel processes; returns seconds and processes."""
    started = time.perf_counter()
    parts = max(1, min(14, (os.cpu_count() or 2) - 2))
    program = (sys.executable, "-m", "recsys.benchmarks.gpu.stage", stage.name, "--out", str(out))
    carried = () if scale.datasets is None else ("--datasets", str(scale.datasets))
    alone = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # there are processes enough
    running = [
        subprocess.Popen([*program, *carried, "--warm", f"{part}/{parts}"], cwd=ROOT, env=alone)
        for part in range(parts)
    ]
    cut = 0
    for process in running:
        try:
            process.wait(max(0.1, stage.compiling - (time.perf_counter() - started)))
        except subprocess.TimeoutExpired:
            cut += 1
            process.kill()
            process.wait()
    seconds = round(time.perf_counter() - started, 1)
    return {"seconds": seconds, "processes": parts, "cut_off": cut}


def lost(device: torch.device) -> bool:
    """Whether the GPU answers no more in this process; frees its memory if it does."""
    if device.type != "cuda":
        return False
    try:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _limits(out: Path, device: torch.device) -> dict[str, float]:
    """The device's limits: measured once a folder and chip."""
    import json

    from recsys.benchmarks.kernels.limits import measure_limits

    path, chip = out / "limits.json", torch.cuda.get_device_name()
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["chip"] == chip:
            found: dict[str, float] = body["limits"]
            return found
    limits = measure_limits(device)
    write_json(path, {"chip": chip, "limits": limits})
    return limits


def main() -> int:
    """Run the stages that are named; 0, 1 if a case failed, 2 on a user's error, `AGAIN`."""
    parser = argparse.ArgumentParser(prog="python -m recsys.benchmarks.gpu.stage", description=__doc__)
    parser.add_argument("stages", help="names with commas between")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--datasets", type=Path, help="folder of what was taken along")
    parser.add_argument("--fresh", action="store_true", help="measure anew what has a record")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument(
        "--until", type=float, default=math.inf, help="seconds of the epoch: no case begins later"
    )
    parser.add_argument("--warm", help="PART/PARTS: only compile this share")
    options = parser.parse_args()
    add_carried(options.datasets)
    code = 0
    try:
        stages = chosen(options.stages)
        if options.dry:
            torch.set_num_threads(1)
            scale = Scale(torch.device("cpu"), dry=True, seconds=0.0, datasets=options.datasets)
        else:
            device = torch.device("cuda", torch.cuda.current_device())
            limits = None if options.warm else _limits(options.out, device)
            scale = Scale(device, limits=limits, datasets=options.datasets)
        for stage in stages:
            if options.warm:
                part, parts = map(int, options.warm.split("/"))
                warm_up(stage, options.out, scale, part, parts)
                continue
            code = max(code, run_stage(stage, options.out, scale, fresh=options.fresh, until=options.until))
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
