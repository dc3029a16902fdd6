"""Folders that appear whole or not at all: written under a temporary name beside the target, then renamed.

A process holds a lock on each temporary folder. What one that was killed left behind has none, and goes (or,
where it is the data of before, comes back) when the same target is written next.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recsys.errors import DataError

_WRITING, _OLD = ".writing-", ".old-"


class WriteError(DataError):
    """A folder or file cannot be written."""


def with_home(path: str | Path) -> Path:
    """A path as its user means it, ``~`` for the home folder.

    Raises:
        DataError: the home folder of nobody.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {str(error).rstrip('.')}; write the path in full") from None


@contextmanager
def replacing_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that takes its place if the block succeeds.

    An empty current folder, or an empty place where a disk is mounted, cannot be exchanged: it is filled.

    Args:
        target: the folder to make; its parents are made too.
        overwrite: whether an existing folder may be replaced. It is moved aside before the rename and
            put back if the rename fails.

    Raises:
        WriteError: the disk is full, the folder cannot be written, or ``target`` exists.
    """
    target = target.resolve() if target.name in ("", "..") else target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        temporary, lock = _locked(target, _WRITING)
    except OSError as error:
        raise write_error(target, error) from None
    try:
        yield temporary
        _open_to_others(temporary)
        _put(temporary, target, overwrite)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def appearing_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` that becomes it, within a folder that is itself temporary.

    Who does a piece of work that another has done already, as after a retry, leaves the other's in place.

    Raises:
        OSError: it cannot be written.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield temporary
        _open_to_others(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Remove what a killed process left beside a folder; data that it had moved aside come back."""
    if not target.parent.is_dir():
        return
    for kind in (_OLD, _WRITING):
        prefix = f".{target.name}{kind}"
        for left in [one for one in target.parent.iterdir() if one.name.startswith(prefix)]:
            with suppress(OSError):  # what others hold or own stays
                _clear(left, target)


def write_error(path: Path, error: OSError) -> WriteError:
    """The one-line error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(f"{path}: the disk is full; free some space and run again")
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and path.exists():
        return WriteError(f"{path}: already exists; choose another folder or pass overwrite=True")
    return WriteError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def _open_to_others(folder: Path) -> None:
    """Give a folder that tempfile made for its owner alone the usual rights."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)


def _locked(target: Path, kind: str) -> tuple[Path, int]:
    """A fresh folder beside the target and the lock on it."""
    while True:
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}{kind}", dir=target.parent))
        lock = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # some network disks have no locks; nothing is swept there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if fresh.is_dir():
            return fresh, lock
        os.close(lock)  # a sweeper was faster than the lock


def _clear(left: Path, target: Path) -> None:
    lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (left / "old").is_dir() and not target.exists():
            (left / "old").rename(target)
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def _put(temporary: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir() and (os.path.ismount(target) or target.samefile(Path.cwd())):
        _fill(temporary, target)
        return
    if not (overwrite and target.exists()):
        # rename(2) silently takes the place of an empty folder, which holds nothing to lose.
        temporary.rename(target)
        return
    aside, lock = _locked(target, _OLD)
    target.rename(aside / "old")
    try:
        temporary.rename(target)
    except OSError:
        (aside / "old").rename(target)
        raise
    finally:
        os.close(lock)
        shutil.rmtree(aside, ignore_errors=True)


def _fill(temporary: Path, target: Path) -> None:
    if any(target.iterdir()):
        raise WriteError(
            f"{target}: is the current folder or a mounted disk, and not empty; name a folder in it"
        )
    # A .json file says that the rest is whole, so it comes last.
    for entry in sorted(temporary.iterdir(), key=lambda entry: entry.suffix == ".json"):
        shutil.move(entry, target / entry.name)
