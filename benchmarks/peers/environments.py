"""Environments of the other libraries: made once from PyPI with pinned versions, reused after."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MARKER = "complete.json"
INSTALL_TIMEOUT_S = 1800


class PeerUnavailable(Exception):
    """A peer's environment cannot be made here; the message is one line that says why."""


@dataclass(frozen=True)
class PeerEnvironment:
    """A library and the versions that it is known to run with.

    Attributes:
        name: folder of the environment.
        requirements: what pip is asked for, pinned.
        probe: Python code that must run in it.
    """

    name: str
    requirements: tuple[str, ...]
    probe: str


# RecBole 1.2.1 imports pkg_resources (setuptools < 81) and numpy 1's aliases through ray 2.6.3, the
# newest that it allows; ray 2.6.3 has wheels up to Python 3.11.
RECBOLE = PeerEnvironment(
    "recbole-1.2.1",
    (
        "recbole==1.2.1",
        "torch==2.13.0",
        "numpy==1.26.4",
        "pandas==2.2.3",
        "scipy==1.12.0",
        "setuptools==80.10.2",
        "ray==2.6.3",
    ),
    "import recbole.quick_start",
)
RECTOOLS = PeerEnvironment(
    "rectools-0.19.0",
    (
        "rectools[torch]==0.19.0",
        "torch==2.13.0",
        "pytorch-lightning==2.5.2",
        "numpy==1.26.4",
        "pandas==2.3.3",
    ),
    "import rectools.models, rectools.fast_transformers",
)
REPLAY = PeerEnvironment(
    "replay-0.22.0",
    ("replay-rec==0.22.0", "torch==2.13.0", "lightning==2.5.6", "numpy==2.4.6", "pandas==2.3.3"),
    "import replay.nn.sequential, replay.data.nn.parquet.parquet_module",
)


def ensure(environment: PeerEnvironment, workdir: Path, *, python: str = sys.executable) -> Path:
    """The environment's interpreter; the environment is made first where it is not complete.

    Args:
        environment: what to install.
        workdir: folder that holds the environments.
        python: interpreter to make it with.

    Raises:
        PeerUnavailable: making the environment, installing or importing failed.
    """
    folder = workdir / environment.name
    interpreter = folder / "bin" / "python"
    marker = folder / MARKER
    wanted = {"requirements": list(environment.requirements), "python": os.path.realpath(python)}
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8"))["asked"] == wanted:
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"making {folder} ({', '.join(environment.requirements)})", file=sys.stderr, flush=True)
    _run(environment, "making the environment", [python, "-m", "venv", str(folder)])
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run(environment, "pip install", [*pip, "install", "--quiet", *environment.requirements])
    _run(environment, "the first import", [str(interpreter), "-W", "ignore", "-c", environment.probe])
    frozen = _run(environment, "pip freeze", [*pip, "freeze"])
    partial = marker.with_suffix(".partial")
    content = {"asked": wanted, "installed": frozen.splitlines()}
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(marker)
    return interpreter


def _run(environment: PeerEnvironment, what: str, command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{environment.name}: {what} failed ({error})") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # pip's own last word is less telling than its first error.
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        reason = errors[0] if errors else f"exit status {done.returncode}"
        raise PeerUnavailable(f"{environment.name}: {what} failed ({reason})")
    return done.stdout
