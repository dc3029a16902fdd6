"""The files of a prepared dataset: names, meta.json, sizes, hashes, mapping. Needs numpy alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.versions import upgraded
from recsys.errors import DataError

FORMAT = "recsys-sequences"
META_FILE = "meta.json"


def read_meta(folder: Path) -> dict[str, Any]:
    """Read and check the meta.json of a prepared dataset.

    Raises:
        DataError: it is missing, damaged or of another format version.
    """
    path = folder / META_FILE
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; prepare a log into it first")
    if not folder.is_dir() or not path.is_file():
        raise DataError(f"{folder}: not a prepared dataset (no {META_FILE}); prepare a log first")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare the log again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{folder}: not a prepared dataset ({META_FILE} does not say so)")
    meta = upgraded(meta, path)
    files = meta.get("files")
    well_formed = isinstance(files, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
        for entry in files.values()
    )
    if not well_formed or not isinstance(meta.get("counts"), dict) or not isinstance(meta.get("ids"), dict):
        raise DataError(f"{path}: damaged (files, counts or ids are missing); prepare the log again")
    return meta


def fingerprint(meta: dict[str, Any]) -> str:
    """Hash of the recorded hashes of arrays and ids.

    The vocabularies count by their ids, not by their files, whose bytes depend on the Parquet writer.
    """
    lines = [f"{name} {entry['sha256']}" for name, entry in meta["files"].items() if name.endswith(".npy")]
    lines += [f"{name} {digest}" for name, digest in meta["ids"].items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_size(path: Path, entry: dict[str, Any]) -> None:
    """Compare a file's size with the recorded one.

    Raises:
        DataError: the file is missing or has another size.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing; prepare the log again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if size != entry["bytes"]:
        raise DataError(f"{path}: has {size} bytes, {entry['bytes']} belong there; prepare the log again")


def map_array(path: Path, dtype: type[np.generic], axes: int = 1) -> NDArray[Any]:
    """Map an array file into memory, read-only.

    Raises:
        DataError: the file is missing, damaged, or holds another type or shape.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing; prepare the log again") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare the log again") from None
    if array.dtype != dtype or array.ndim != axes:
        shape = "(n, p)" if axes == 2 else "(n,)"
        raise DataError(
            f"{path}: holds {array.dtype} of shape {array.shape}, {np.dtype(dtype)} {shape} belongs there;"
            " prepare the log again"
        )
    return array
