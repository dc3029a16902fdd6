"""Place a prepared dataset into another folder without copying its bytes where the disk allows."""

import os
import shutil
from pathlib import Path
from typing import Any

from recsys.datasets.folders import replacing_folder
from recsys.datasets.prepared.files import META_FILE, read_meta
from recsys.datasets.prepared.shards import MANIFEST_FILE, is_sharded, read_manifest
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import DataError


def link_or_copy(store: SequenceStore, target: str | Path) -> SequenceStore:
    """Put an identical prepared dataset into a folder, whole or not at all.

    Files become hard links, or copies where the file system has no links between the two places. Prepared
    files are never changed in place, so a shared file stays what it was.

    Args:
        store: the dataset.
        target: folder to make. If it already holds the same dataset it is left as it is.

    Returns:
        The dataset in its new place.

    Raises:
        DataError: ``target`` holds something else, or cannot be written, or the dataset's own folder was
            replaced or removed since it was opened.
    """
    folder = Path(target)
    if folder.exists():
        try:
            present = SequenceStore.open(folder)
        except DataError as error:
            raise DataError(f"{folder}: exists and is not the dataset of {store.path} ({error})") from None
        if present.fingerprint != store.fingerprint:
            raise DataError(
                f"{folder}: holds another prepared dataset than {store.path}; choose another folder"
            )
        return present
    with replacing_folder(folder) as temporary:
        try:
            _link_all(store.path, temporary)
        except FileNotFoundError:
            raise _gone(store) from None
        if SequenceStore.open(temporary, verify=False).fingerprint != store.fingerprint:
            raise _gone(store)
    return SequenceStore.open(folder)


def described(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """What a prepared dataset's meta.json or shards.json holds, and the names of all that lies in its folder.

    Raises:
        DataError: the folder is no prepared dataset, or that file is damaged.
    """
    if is_sharded(folder):
        manifest, shards = read_manifest(folder)
        return manifest, {MANIFEST_FILE, *manifest["files"], *(shard.name for shard in shards)}
    meta = read_meta(folder)
    return meta, {META_FILE, *meta["files"]}


def _link_all(source: Path, target: Path) -> None:
    for name in described(source)[1]:
        if (source / name).is_dir():
            (target / name).mkdir()
            _link_all(source / name, target / name)
        else:
            link_file(source / name, target / name)


def _gone(store: SequenceStore) -> DataError:
    return DataError(
        f"{store.path}: was replaced or removed since this dataset was opened; open, load or fit it again"
    )


def link_file(source: Path, target: Path) -> None:
    """Give a file that never changes a second place, without copying it where the disk allows."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
