"""What a stage found, written after every case, so that a run goes on where it was cut off."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys.benchmarks.gpu.stages import ROOT, Stage
from recsys.benchmarks.machine import stamp
from recsys.errors import RunError
from recsys.files import replacing, write_json

__all__ = ["BUNDLE", "DRY", "Record", "bundle", "bundle_back", "digest_of", "read_records", "unbundle"]

BUNDLE = "gpu.tar"
"""All records in one file, which is what comes back from a machine that is lent."""

DRY = "none, a dry run"
"""Chip of what proves that a stage runs, and claims nothing."""

_CODE = (".py", ".json")


def digest_of(sources: Iterable[str], root: Path = ROOT) -> str:
    """Hash the code and the tables below some files and folders of the repository.

    Raises:
        RunError: one of them is missing.
    """
    hasher = hashlib.sha256()
    for source in sources:
        path = root / source
        if not path.exists():
            raise RunError(f"{path}: is not there, and a record depends on it; run from a checkout")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in _CODE and file.is_file() and "__pycache__" not in file.parts:
                hasher.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return hasher.hexdigest()[:12]


class Record:
    """The record of one stage, `FOLDER/STAGE.json`.

    Args:
        folder: of the run.
        stage: whose record it is.
        chip: name of the GPU, or `DRY`.
        fresh: take nothing of what is there.
    """

    def __init__(self, folder: Path, stage: Stage, chip: str, *, fresh: bool = False) -> None:
        self.path = folder / f"{stage.name}.json"
        digest = digest_of(stage.sources)
        device = "cpu" if chip == DRY else "cuda"
        head = {"benchmark": "gpu", "stage": stage.name, "chip": chip, "device": device, "digest": digest}
        there = None if fresh or not self.path.exists() else json.loads(self.path.read_text(encoding="utf-8"))
        if there is not None and (there["chip"], there["digest"]) == (chip, digest):
            self.body: dict[str, Any] = there | {"finished": False}
        else:
            self.body = head | stamp() | {"finished": False, "cases": {}}

    @property
    def cases(self) -> dict[str, Any]:
        """Name of a case -> what it gave, or its error."""
        found: dict[str, Any] = self.body["cases"]
        return found

    def keep(self, name: str, entry: dict[str, Any]) -> None:
        """Add a case, and write."""
        self.cases[name] = entry
        self.write()

    def note(self, **facts: Any) -> None:
        """Add facts of the stage, and write."""
        self.body.update(facts)
        self.write()

    def write(self) -> None:
        """Write the record, and all of them into the one file that comes back from elsewhere."""
        write_json(self.path, self.body)
        if self.body["device"] == "cuda":
            bundle_back(self.path.parent)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Stage -> record, of all that a folder holds."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        if body.get("benchmark") == "gpu":
            found[body["stage"]] = body
    return found


def bundle_back(folder: Path) -> None:
    """Pack a folder into the one that OUT names, if it names one: what is there comes back from elsewhere."""
    back = os.environ.get("OUT")
    if back:
        bundle(folder, Path(back) / BUNDLE)


def bundle(folder: Path, target: Path) -> None:
    """Put a folder's records and logs into one tar file."""
    with replacing(target) as temporary, tarfile.open(temporary, "w") as tar:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".jsonl", ".txt"):
                tar.add(path, arcname=path.name)


def unbundle(source: Path, folder: Path) -> list[str]:
    """Take the records out of a bundle that a folder does not have yet; returns their names.

    Raises:
        RunError: the file is no bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    try:
        with tarfile.open(source) as tar:
            for member in tar.getmembers():
                data = tar.extractfile(member)
                target = folder / Path(member.name).name
                if data is not None and target.suffix in (".json", ".jsonl") and not target.exists():
                    with replacing(target) as temporary:
                        temporary.write_bytes(data.read())
                    taken.append(target.name)
    except tarfile.TarError as error:
        raise RunError(f"{source}: is no bundle of records ({error}); remove it") from None
    return taken
