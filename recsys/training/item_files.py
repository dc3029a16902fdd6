"""Rows of the item table in files of a checkpoint, one for each process that had some.

A file holds ``rows`` (n,) int64, which of the table's rows it has, and by name the tensors with a row for
each of them: weights, moments, averages, the best weights. So another number of processes may go on.
``state.json`` names the files and their sha256 and is written last: a set of files is whole or is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.errors import RunError
from recsys.files import replacing, save_tensors, sha256_of

__all__ = ["TABLE", "ItemFile", "is_of_rows", "load_rows", "own_rows", "save_rows"]

TABLE = "item_embedding.weight"
"""The parameter whose rows are shared out."""
ROWS = "rows"
"""Name of the row numbers in a file."""


@dataclass(frozen=True, slots=True)
class ItemFile:
    """A file of rows, as ``state.json`` names it.

    Attributes:
        name: in the checkpoint's folder.
        sha256: of its bytes.
        n_rows: rows that it has.
    """

    name: str
    sha256: str
    n_rows: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def is_of_rows(name: str, value: Tensor) -> bool:
    """Whether a tensor of a checkpoint has a row for each row of the table."""
    return TABLE in name and value.dim() > 0


def own_rows(tensors: Mapping[str, Tensor], first: int, every: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint, of those with the table's rows every `every`-th from `first` on."""
    return {
        name: value[first::every].clone() if is_of_rows(name, value) else value
        for name, value in tensors.items()
    }


def save_rows(path: Path, tensors: Mapping[str, Tensor], first: int, every: int) -> ItemFile:
    """Write the rows of one process.

    Args:
        path: of the file.
        tensors: (n, ...) each, by name.
        first: of the rows.
        every: from one to the next.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    n_rows = len(next(iter(tensors.values())))
    rows = torch.arange(first, first + n_rows * every, every)
    with replacing(path) as temporary:
        save_tensors({**tensors, ROWS: rows}, temporary)
    return ItemFile(path.name, sha256_of(path), n_rows)


def load_rows(folder: Path, files: Sequence[Mapping[str, Any]], first: int, every: int) -> dict[str, Tensor]:
    """Read the rows first, first + every, ... out of the files of however many processes.

    Args:
        folder: of the checkpoint.
        files: as `ItemFile.to_json` gives them.
        first: of the rows.
        every: from one to the next.

    Raises:
        RunError: a file is missing or damaged.
        KeyError, TypeError: an entry is no file.
    """
    from safetensors import safe_open

    described = [ItemFile(**entry) for entry in files]
    count = len(range(first, sum(file.n_rows for file in described), every))
    found: dict[str, Tensor] = {}
    for file in described:
        path = folder / file.name
        if not path.exists() or sha256_of(path) != file.sha256:
            raise RunError(f"{path}: missing or damaged (its sha256 is not the recorded one); train anew")
        with safe_open(path, framework="pt") as opened:
            rows = opened.get_tensor(ROWS)
            there = (rows - first) % every == 0
            places = (rows[there] - first) // every
            for name in opened.keys():  # noqa: SIM118
                if name == ROWS:
                    continue
                values = opened.get_tensor(name)
                if name not in found:
                    found[name] = values.new_empty(count, *values.shape[1:])
                found[name][places] = values[there]
    return found
