"""The stage that runs the kernels' tests: one call of pytest in many processes, each test in the record."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from recsys.benchmarks.gpu.pytest_outcomes import OUTCOMES, PASSED
from recsys.benchmarks.gpu.records import Record
from recsys.benchmarks.gpu.stages import ROOT, Scale
from recsys.benchmarks.processes import exit_code

__all__ = ["run_tests"]

DRY = "tests/kernels/test_interpreter_triton.py"


def run_tests(record: Record, scale: Scale, seconds: float) -> int:
    """Run what has not passed yet, with a process for nearly every core: compiling takes longest.

    Args:
        record: of the stage.
        scale: dry, one quick file of tests in the interpreter.
        seconds: after which the rest is left to the next call.

    Returns:
        0 if all have passed, else 1.
    """
    log = record.path.with_suffix(".jsonl")
    _take(record, log)  # of a call that was cut off
    passed = {name for name, entry in record.cases.items() if entry["outcome"] != "failed"}
    record.note(calls=record.body.get("calls", 0) + 1, in_one_call=not passed)
    with tempfile.TemporaryDirectory() as made:
        known = Path(made) / "passed.json"
        known.write_text(json.dumps(sorted(passed)), encoding="utf-8")
        # Compiled, not interpreted; and led by a process of its own, whoever leads this one.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "TRITON_INTERPRET" and not name.startswith("PYTEST_XDIST")
        }
        environment |= {OUTCOMES: str(log.resolve()), PASSED: str(known)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(_program(scale), cwd=ROOT, env=environment, start_new_session=True)
        code = exit_code(process, seconds)
    _take(record, log)
    record.note(finished=code == 0, exit=code)
    return int(code != 0)


def _program(scale: Scale) -> list[str]:
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default"]
    pytest += ["-p", "recsys.benchmarks.gpu.pytest_outcomes"]
    if scale.dry:
        return [*pytest, DRY]
    if importlib.util.find_spec("xdist") is not None:
        pytest += ["-n", str(max(1, min(14, (os.cpu_count() or 2) - 2)))]
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/kernels").glob("test_*_triton.py"))
    return [*pytest, "--durations=10", *tests, "tests/kernels/test_on_device.py"]


def _take(record: Record, log: Path) -> None:
    """Move the outcomes that pytest wrote into the record."""
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line, cut off with its process
            continue
        record.cases[entry.pop("test")] = entry
    record.write()
    log.unlink()
