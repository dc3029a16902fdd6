"""The names of a run folder, and what a folder is by what lies in it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from recsys.config import read_toml
from recsys.errors import ConfigError, RunError
from recsys.files import read_json, user_path


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run; ``~`` and relative paths are made absolute."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", user_path(self.path))

    @property
    def config(self) -> Path:
        """Configuration, TOML."""
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        """What says that the run is whole, JSON."""
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        """Best weights."""
        return self.path / "model.safetensors"

    @property
    def data(self) -> Path:
        """The prepared dataset."""
        return self.path / "data"

    @property
    def report(self) -> Path:
        """Test figures and protocol card, JSON."""
        return self.path / "report.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def index(self) -> Path:
        """The item index."""
        return self.path / "index"

    @property
    def checkpoint(self) -> Path:
        """What training goes on from."""
        return self.path / "checkpoint"

    @property
    def mark(self) -> Path:
        """Says that the folder is on its way to its place: a file that is there or not."""
        return self.path / ".unpublished"

    def beside(self, what: str) -> "RunFolder":
        """A hidden folder on the same disk, by the name of what it is for."""
        return RunFolder(self.path.with_name(f".{self.path.name}.{what}"))


_TEMPORARY = r"\.{}\.\w{{8}}"
_FILES = ("config.toml", "run.json", "model.safetensors", "metrics.jsonl", "report.json")
_WRITTEN = "|".join(re.escape(name) for name in _FILES)
_NPY = r"[a-z_]+\.npy|(users|items|tags)\.parquet|(meta|shards)\.json"
_DATA = r"data|\.data\.[\w.-]+"

PARTS: Mapping[str, str] = {
    "": rf"{_WRITTEN}|\.unpublished|{_TEMPORARY.format(f'({_WRITTEN})')}",
    r"data": _NPY,
    r"\.data\.[\w.-]+": rf"{_NPY}|columns\.parquet",
    rf"({_DATA})/shard-\d{{5}}-of-\d{{5}}": _NPY,
    r"checkpoint": r"\.?(state\.json|(tensors-\d+(-\d+)?|items-\d+-\d+-\d+-of-\d+)\.safetensors)(\.\w{8})?",
    r"plots": r"\.?(training|user-clock|ndcg-by-hour)\.(png|svg|pdf)(\.\w{8})?",
    r"index": r"(vectors|parts|golden|categories|extra|changes)-[0-9a-f]{12}\.safetensors|manifest\.json"
    r"|\.new-\w+",
}
"""What a run is made of: paths of its folders, its own being "", with the names of the files in them."""


def foreign(folder: Path, within: str = "") -> Iterator[Path]:
    """What lies in a folder and is no part of a run.

    Args:
        folder: to look into.
        within: its path inside the run.
    """
    files = next(names for path, names in PARTS.items() if re.fullmatch(path, within))
    for entry in sorted(folder.iterdir()):
        path = f"{within}/{entry.name}" if within else entry.name
        if entry.is_dir():
            known = any(re.fullmatch(name, path) for name in PARTS if name)
            if known and not entry.is_symlink():
                yield from foreign(entry, path)
            else:
                yield entry
        elif not re.fullmatch(files, entry.name):
            yield entry


class State(Enum):
    """What a folder is."""

    EMPTY = "empty or not there"
    BEGUN = "the beginning of a run, without a checkpoint"
    UNFINISHED = "an unfinished run"
    WHOLE = "a run"


def state_of(run: RunFolder) -> State:
    """What a folder is.

    Raises:
        RunError: it is a file, or holds something that is not a run.
    """
    if run.path.exists() and not run.path.is_dir():
        raise RunError(f"{run.path}: is a file; name a folder")
    try:
        if not run.path.exists() or not any(run.path.iterdir()):
            return State.EMPTY
    except OSError as error:
        raise RunError(f"{run.path}: cannot be read ({error.strerror or error})") from None
    if _holds(run.manifest, "encoder", "sha256", "n_items"):
        return State.WHOLE
    if not run.manifest.exists() and _holds(run.checkpoint / "state.json", "tensors", "progress"):
        return State.UNFINISHED
    if not run.manifest.exists() and _is_config(run.config):
        return State.BEGUN
    # A run whose files are damaged is a run all the same.
    if run.manifest.exists() and run.weights.exists() and _is_config(run.config):
        return State.WHOLE
    raise RunError(f"{run.path}: exists and is not a run; choose an empty folder")


def _holds(path: Path, *keys: str) -> bool:
    try:
        return set(keys) <= set(read_json(path))
    except RunError:
        return False


def _is_config(path: Path) -> bool:
    try:
        return all(read_toml(path).values())
    except ConfigError:
        return False
