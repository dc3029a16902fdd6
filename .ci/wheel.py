"""Build the wheel, install it with nothing else into an empty environment, and use it in an empty folder.

    python .ci/wheel.py [PYTHON]

What a clone has beside it (tests, docs, this file) is not there; what the package promises must be.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run every step; the first failure ends the run."""
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    with tempfile.TemporaryDirectory(prefix="recsys-wheel-") as name:
        place = Path(name)
        _run([python, "-m", "venv", place / "env"])
        own = place / "env" / "bin"
        pip = [own / "python", "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", place, ROOT])
        (wheel,) = place.glob("*.whl")
        # Without the constraints of the clone: what anybody would get, but for torch, whose newest build can
        # be one for GPUs of several gigabytes.
        torch = os.environ.get("RECSYS_WHEEL_TORCH", "torch==2.13.0")
        _run([*pip, "install", "--quiet", torch, wheel])
        empty = place / "empty"
        empty.mkdir()
        _log(empty / "clicks.csv")
        recsys = own / "recsys"
        _run([recsys, "--version"], empty)
        _run([own / "python", "-c", "import recsys; print(recsys.__version__, recsys.Recommender())"], empty)
        _run([recsys, "train", "clicks.csv", "--out", "run", *_SMALL], empty)
        _run([recsys, "recommend", "run", "--user", "3", "--k", "3"], empty)
        _run([recsys, "doctor"], empty)
        _run([recsys, "bench", "accuracy"], empty)
        _run([recsys, "bench", "kernels", "--seconds", "5", "--only", "conv", "--events", "2000"], empty)
        left = {path.name for path in empty.iterdir()} - {"clicks.csv", "run"}
        if left:
            print(f"wheel: left behind in the folder: {sorted(left)}", file=sys.stderr)
            return 1
    print("wheel: all commands ran")
    return 0


_SMALL = ("--set", "training.epochs=1", "--set", "encoder.d_model=16", "--set", "encoder.n_layers=1")


def _log(path: Path) -> None:
    draw = random.Random(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(60):
        lines += [f"{user},{draw.randrange(30)},{1_700_000_000 + 60 * place}" for place in range(10)]
    path.write_text("\n".join(lines) + "\n")


def _run(command: Sequence[object], folder: Path | None = None) -> None:
    shown = " ".join(Path(str(word)).name for word in command)
    print(f"wheel: {shown}", flush=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        print(f"wheel: failed: {shown}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
