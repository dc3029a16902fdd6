"""Place a prepared dataset into another folder without copying its bytes where the disk allows."""

import os
import shutil
from pathlib import Path

from recsys.datasets.folders import replacing_folder
from recsys.datasets.prepared.files import META_FILE, fingerprint, read_meta
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
        for name in (META_FILE, *store.meta["files"]):
            try:
                _link(store.path / name, temporary / name)
            except FileNotFoundError:
                raise _gone(store) from None
        if fingerprint(read_meta(temporary)) != store.fingerprint:
            raise _gone(store)
    return SequenceStore.open(folder)


def _gone(store: SequenceStore) -> DataError:
    return DataError(
        f"{store.path}: was replaced or removed since this dataset was opened; open, load or fit it again"
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
