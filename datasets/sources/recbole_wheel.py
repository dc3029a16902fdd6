"""MovieLens 100K out of the PyPI wheel recbole 1.2.1, which carries it as an example.

The ratings there are GroupLens's u.data under a header line: without it the bytes have u.data's published
sha256. Titles and years stand in columns of their own; joined again they are those of u.item, but for item
267 ("unkonwn") and the mark "(V)" of item 1412, which are restored here.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

RunCommand = Callable[[list[str]], "subprocess.CompletedProcess[str]"]

_REQUIREMENT = "recbole==1.2.1"
_FOLDER = "recbole/dataset_example/ml-100k"
_HASHES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
_PIP_TIMEOUT_S = 300


def run_command(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command and keep what it prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)


def ml_100k_from_wheel(run: RunCommand = run_command) -> "tuple[bytes, pl.DataFrame]":
    """Fetch the wheel with pip and take the ratings and the items.

    Nothing is installed and no code of the wheel runs.

    Args:
        run: runs pip.

    Returns:
        The bytes of u.data, and a frame ``item_id`` int64, ``title``, ``genres``.

    Raises:
        DataError: pip fails, or the wheel holds other files than expected.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "--dest",
            folder,
            _REQUIREMENT,
        ]
        try:
            done = run(command)
        except (OSError, subprocess.SubprocessError) as error:
            raise DataError(f"pip download {_REQUIREMENT}: {error}") from None
        wheels = list(Path(folder).glob("recbole-*.whl"))
        if done.returncode != 0 or not wheels:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise DataError(f"pip download {_REQUIREMENT}: {lines[-1] if lines else 'no wheel came'}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                content = {name: wheel.read(f"{_FOLDER}/{name}") for name in _HASHES}
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheels[0].name}: does not hold ml-100k ({error})") from None
    for name, expected in _HASHES.items():
        if hashlib.sha256(content[name]).hexdigest() != expected:
            raise DataError(f"{_REQUIREMENT}: its {name} is not the expected one (sha256)")
    return content["ml-100k.inter"].split(b"\n", 1)[1], _items(content["ml-100k.item"].decode("utf-8"))


def _items(text: str) -> "pl.DataFrame":
    import polars as pl

    rows = [line.split("\t") for line in text.splitlines()[1:] if line]
    return pl.DataFrame(
        {
            "item_id": [int(row[0]) for row in rows],
            "title": [_title(row[1], row[2]) for row in rows],
            "genres": [row[3].replace(" ", "|") for row in rows],
        }
    )


def _title(name: str, year: str) -> str:
    if name == "unkonwn":
        return "unknown"
    return f"{name} ({year})" if year.isdigit() or year == "V" else name
