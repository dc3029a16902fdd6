"""What travels to a GPU machine that reaches nothing: rivals as unpacked wheels, prepared datasets.

    python -m recsys.benchmarks.gpu.carry

downloads the wheels of `RIVALS`, which hold Python alone, and unpacks them into `.carry/rivals`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from recsys.benchmarks.gpu.stages import ROOT
from recsys.errors import RecsysError, RunError

__all__ = ["CARRIED", "MOST", "RIVALS", "add_carried", "carry_wheels", "size_of"]

CARRIED = ROOT / ".carry"
"""Ignored by git."""

RIVALS = ("liger-kernel==0.8.5", "cut-cross-entropy==25.1.1")

MOST = 64 << 20
"""Bytes that may travel beside the repository."""


def add_carried(folder: Path | None = None) -> None:
    """Let Python find carried packages behind those that the machine has."""
    rivals = (folder or CARRIED) / "rivals"
    if rivals.is_dir() and str(rivals) not in sys.path:
        sys.path.append(str(rivals))


def carry_wheels(wheels: Sequence[Path], folder: Path) -> None:
    """Unpack wheels into a folder that is then all there is in it.

    Raises:
        RunError: a file is no wheel.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for wheel in wheels:
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(Path(made) / "rivals")
            except zipfile.BadZipFile:
                raise RunError(f"{wheel}: is not a wheel; download it again") from None
        shutil.rmtree(folder, ignore_errors=True)
        (Path(made) / "rivals").rename(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Download, unpack, say how large it is; 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.gpu.carry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wheels", nargs="*", type=Path, help="further wheels, made for that machine")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as downloads:
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
            done = subprocess.run([*pip, "--dest", downloads, *RIVALS], check=False)
            if done.returncode:
                raise RunError(f"pip could not download {', '.join(RIVALS)}; see above")
            carry_wheels([*sorted(Path(downloads).glob("*.whl")), *options.wheels], CARRIED / "rivals")
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    size = size_of(CARRIED)
    print(f"{CARRIED}: {size / 2**20:.1f} MiB of {MOST >> 20} that may travel")
    return 0 if size <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
