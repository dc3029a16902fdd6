"""Write the files of a prepared dataset into a folder and describe them in meta.json."""

import importlib.metadata
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.event_columns import columns_digest
from recsys.datasets.prepared.files import FORMAT, META_FILE, sha256_of
from recsys.datasets.prepared.item_features import TAGS, tags_digest
from recsys.datasets.prepared.versions import FORMAT_VERSION
from recsys.datasets.prepared.vocabulary import Vocabulary
from recsys.datasets.schema import ITEM, USER

if TYPE_CHECKING:
    import polars as pl


def write_dataset(
    folder: Path,
    *,
    arrays: dict[str, NDArray[Any]],
    users: "pl.Series",
    items: "pl.DataFrame",
    meta: dict[str, Any],
    tags: "pl.DataFrame | None" = None,
) -> None:
    """Write arrays, vocabularies and meta.json.

    Args:
        folder: an empty folder.
        arrays: by name, as `recsys.datasets.prepared.store.SequenceStore` describes them.
        users: (U,) ids in the order of their indices.
        items: V rows with ``item_id`` first, in the order of their indices.
        meta: what else to record; format, version, hashes and sizes are added.
        tags: C rows ``column``, ``name``, ``count`` in the order of their numbers, if items bear tags.

    Raises:
        OSError: a file cannot be written.
    """
    for name, array in arrays.items():
        write_array(array, folder / f"{name}.npy")
    write_parquet(users.alias(USER).to_frame(), folder / "users.parquet")
    write_parquet(items, folder / "items.parquet")
    names = [f"{name}.npy" for name in arrays] + ["users.parquet", "items.parquet"]
    ids = {"users": Vocabulary(users).digest(), "items": Vocabulary(items[ITEM]).digest()}
    if meta.get("event_columns") is not None:
        ids["event_columns"] = columns_digest(meta["event_columns"])
    if tags is not None:
        write_parquet(tags, folder / TAGS)
        names.append(TAGS)
        ids["tags"] = tags_digest(tags)
    write_meta(folder, meta, ids, {name: describe_file(folder / name) for name in names})


def write_meta(
    folder: Path, meta: dict[str, Any], ids: dict[str, str], files: dict[str, dict[str, Any]]
) -> None:
    """Write meta.json.

    Args:
        folder: that holds the files.
        meta: what to record besides.
        ids: digests of the vocabularies by name.
        files: what `describe_file` says of each file by name.
    """
    described = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recsys_version": this_version(),
        **meta,
        "ids": ids,
        "files": files,
    }
    text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / META_FILE).write_text(text, encoding="utf-8")


def describe_file(path: Path) -> dict[str, Any]:
    """Size and hash of a file, as meta.json holds them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def write_array(array: NDArray[Any], path: Path) -> None:
    """Write a ``.npy`` file; a full disk is an OSError with its number, which numpy's own writer drops."""
    whole = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        file.write(whole.data)


def write_parquet(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame; a full disk is an OSError with its number, which polars' own writer drops."""
    content = io.BytesIO()
    frame.write_parquet(content, compression="zstd")
    # No view of the buffer: the frames of an exception would hold it, and a buffer in use cannot be freed.
    path.write_bytes(content.getvalue())


def this_version() -> str:
    """Version of the installed engine."""
    try:
        return importlib.metadata.version("recsys-engine")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
