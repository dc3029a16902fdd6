"""``python -m recsys.benchmarks.kernels``: ``recsys bench kernels``, with the standard library alone."""

import argparse
import json
import sys
from pathlib import Path

from recsys.benchmarks.kernels import run
from recsys.benchmarks.kernels.shapes import EVENTS
from recsys.benchmarks.report import lines
from recsys.errors import RecsysError
from recsys.files import write_json


def main() -> int:
    """Run, print, write; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(prog="python -m recsys.benchmarks.kernels", description=run.__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--only", help="operations, with commas between")
    parser.add_argument("--seconds", type=float, default=150.0, help="for all comparisons together")
    parser.add_argument("--events", type=int, default=EVENTS, help="of a batch (default: %(default)s)")
    parser.add_argument("--plots", type=Path, help="folder for the roofline plot")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    out = options.out
    try:
        result = run(
            device=options.device,
            only=options.only,
            seconds=options.seconds,
            events=options.events,
            plots=options.plots,
            keep=(lambda result: None) if out is None else lambda result: write_json(out, result),
        )
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if out is not None:
        write_json(out, result)
    print("\n".join(lines(result)))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
