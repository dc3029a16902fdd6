"""What `recsys serve` reaches under load, line by line: ``python -m recsys.benchmarks.serving.table``.

    python -m recsys.benchmarks.serving.table --sasrec RUN --mamba RUN [--lines noop,history]

Starts the service anew for each line, on the loopback, and asks it by the open-loop client of this package:
every load is bounded in count and time, a latency counts from when a request was due, and figures are medians
of rounds. Each line is written into the record as it is done, in the place of its earlier one. Without runs
it trains its own for one epoch, on a made log of ML-1M's size: speed does not depend on the weights.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from recsys.benchmarks.serving.lines import LINES, Setting
from recsys.benchmarks.serving.made import made_run
from recsys.benchmarks.serving.records import FOLDER, merge
from recsys.errors import ConfigError, RecsysError

__all__ = ["main"]


def main() -> int:
    """Run the lines, print and record each; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sasrec", type=Path, help="run of SASRec")
    parser.add_argument("--mamba", type=Path, help="run of Mamba")
    parser.add_argument("--made", type=Path, default=Path("build/serving-runs"), help="where own runs go")
    parser.add_argument("--lines", default=",".join(LINES), help="with commas between (default: all)")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each load (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "table.json", help="record to write into")
    options = parser.parse_args()
    try:
        names = options.lines.split(",")
        for name in names:
            if name not in LINES:
                raise ConfigError(f"--lines {name!r}: there is none; take of {', '.join(LINES)}")
        runs = {
            encoder: given or made_run(options.made, encoder)
            for encoder, given in (("sasrec", options.sasrec), ("mamba", options.mamba))
        }
        setting = Setting(runs, options.seconds, options.rounds)
        for name in names:
            found = LINES[name].measure(setting)
            entry = {"what": LINES[name].what, "aim": LINES[name].aim, "seconds": options.seconds}
            entry |= {"rounds": options.rounds, "data": setting.model("sasrec").store_.name, "found": found}
            merge(options.out, "python -m recsys.benchmarks.serving.table", "lines", {name: entry})
            print(f"{LINES[name].what} (aim: {LINES[name].aim})", *_told(found), sep="\n  ", flush=True)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def _told(found: dict[str, Any]) -> list[str]:
    told = []
    own = {name: value for name, value in found.items() if not isinstance(value, list)}
    for name, value in own.items():
        if isinstance(value, dict) and ("latency" in value or "steps" in value):
            told += [f"{name}: {line}" for line in _told(value)]
        elif isinstance(value, dict):
            told.append(f"{name}: {', '.join(f'{k} {v:g}' for k, v in value.items())}")
        else:
            told.append(f"{name}: {value:g}")
    for step in found.get("steps", ()):
        told.append(f"at {step['rate']}: {'; '.join(_told({k: step[k] for k in ('failed', 'latency')}))}")
    return told


if __name__ == "__main__":
    sys.exit(main())
