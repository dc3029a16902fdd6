"""``python -m recsys.benchmarks.pages``: write the pages' tables; 1 if a sentence is not the records'."""

import argparse
import sys
from pathlib import Path

from recsys.benchmarks.folders import CHECKOUT
from recsys.benchmarks.pages.claims import Claims, pages, uncovered, wrong
from recsys.benchmarks.pages.sections import SECTIONS, stale, write
from recsys.errors import RecsysError


def main() -> int:
    """Write or only check."""
    parser = argparse.ArgumentParser(prog="python -m recsys.benchmarks.pages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    if CHECKOUT is None:
        print("Error: pages are a checkout's, and this is an installed package", file=sys.stderr)
        return 2
    try:
        faults = _faults(CHECKOUT, check=options.check)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print("\n".join(faults) if faults else f"{len(SECTIONS)} tables and all figures are those of the records")
    return 1 if faults else 0


def _faults(root: Path, *, check: bool) -> list[str]:
    if not check:
        write(root)
    claims = Claims.read()
    found = [*stale(root), *wrong(root, claims)]
    for page in pages(root):
        found += uncovered(root, claims, page)
    return found


if __name__ == "__main__":
    sys.exit(main())
