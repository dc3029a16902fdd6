"""Are the weights of a training the same bits on one process and on several?

    python -m recsys.benchmarks.scale.bits --json benchmarks/results/scale/bits.json

Three encoders, the full and sampled losses, a table and hashed items, repeat bias, items with features, a
head of its own; 2, 3, 4 and 6 batches a step on 1, 2 and 3 processes, wherever the number of processes
divides that of batches. Ends with 1 where a bit differs between numbers of processes, or between processes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.scale.cases import CASES
from recsys.benchmarks.scale.launching import run, torchrun
from recsys.files import write_json

ACCUMULATE = (2, 3, 4, 6)
SIZES = (1, 2, 3)


def measure(cases: list[str], folder: Path) -> dict[str, Any]:
    """By case and batches a step: the sha256, and by how many processes it was reached."""
    found: dict[str, dict[str, Any]] = {name: {} for name in cases}
    for size in SIZES:
        shared = [str(n) for n in ACCUMULATE if n % size == 0]
        out = folder / str(size)
        what = ["-m", "recsys.benchmarks.scale.cases", str(out)]
        launcher = [sys.executable] if size == 1 else torchrun(size)
        run([*launcher, *what, "--accumulate", *shared, "--cases", *cases])
        for rank in range(size):
            told = json.loads(Path(f"{out}-{rank}").read_text(encoding="utf-8"))
            for name in cases:
                for accumulate, facts in told[name].items():
                    known = found[name].setdefault(accumulate, {**facts, "processes": [], "same": True})
                    known["processes"] = sorted({*known["processes"], size})
                    known["same"] &= all(known[key] == value for key, value in facts.items())
        print(f"{size} process{'es' if size > 1 else ''}: {len(cases) * len(shared)} trainings", flush=True)
    return found


def main() -> int:
    """Run and print; write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.cases, Path(folder))
    each = [facts for by_group in found.values() for facts in by_group.values()]
    different = sum(not facts["same"] for facts in each)
    for name, by_group in found.items():
        for accumulate, facts in by_group.items():
            verdict = "same bits" if facts["same"] else "DIFFERENT"
            print(f"{name}, {accumulate} batches: {facts['sha256'][:16]} on {facts['processes']}, {verdict}")
    print(f"{len(each)} trainings, {different} with different bits")
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), "different": different, "cases": found})
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
