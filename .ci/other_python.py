"""Run the tests that need no torch on a newer Python, where this machine has one besides that of .venv.

Reading, checking, preparing and splitting logs is what breaks first when Python, numpy or polars move.
The whole suite runs on every supported Python where packages come for all of them (.github/workflows/ci.yml).
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.13", "3.12", "3.14")
LEFT_OUT = ("torch", "safetensors")
NEEDED = ("pytest", "pytest-xdist", "hypothesis")
TESTS = ("tests/datasets",)


def main() -> int:
    """Find an interpreter and run; 0 where there is none."""
    python = next((path for path in _candidates() if _works(path)), None)
    if python is None:
        print("other Python: none of 3.12, 3.13 and 3.14 is on this machine")
        return 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [d for d in project["dependencies"] if not d.startswith(LEFT_OUT)]
    with tempfile.TemporaryDirectory(prefix="recsys-python-") as name:
        subprocess.run([python, "-m", "venv", name], check=True)
        own = f"{name}/bin/python"
        pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *needed, *NEEDED], check=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        version = subprocess.run(
            [own, "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        print(f"other Python: {version}", flush=True)
        command = [own, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *TESTS]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _candidates() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: list[Path] = []
    for version in VERSIONS:
        found += [folder / f"python{version}" for folder in folders]
        found += sorted(path / "bin" / "python" for path in pyenv.glob(f"{version}.*"))
    return found


def _works(path: Path) -> bool:
    if not path.exists():
        return False
    done = subprocess.run([path, "-c", "import venv, ssl"], check=False, capture_output=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
