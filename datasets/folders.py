"""Folders that appear whole or not at all: written under a temporary name beside the target, then renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import DataError


@contextmanager
def replacing_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that takes its place if the block succeeds.

    Args:
        target: the folder to make; its parents are made too.
        overwrite: whether an existing folder may be replaced. It is moved aside before the rename and
            put back if the rename fails.

    Raises:
        DataError: the disk is full, the folder cannot be written, or ``target`` exists.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise write_error(target, error) from None
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        _put(temporary, target, overwrite)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_error(path: Path, error: OSError) -> DataError:
    """The one-line error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"{path}: the disk is full; free some space and run again")
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and path.exists():
        return DataError(f"{path}: already exists; choose another folder or pass overwrite=True")
    return DataError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def _put(temporary: Path, target: Path, overwrite: bool) -> None:
    if not (overwrite and target.exists()):
        # rename(2) silently takes the place of an empty folder, which holds nothing to lose.
        temporary.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(aside / "old")
    try:
        temporary.rename(target)
    except OSError:
        (aside / "old").rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
