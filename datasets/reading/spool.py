"""Copies of what can be read only once, or not as it lies: pipes, and text of other encodings."""

import atexit
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from recsys.datasets.folders import with_home
from recsys.datasets.reading.contents import decoding, open_text
from recsys.errors import DataError

_CHUNK = 1 << 20


def user_file(log: str | Path) -> Path:
    """The path that a user wrote, with ``~`` for the home folder.

    Raises:
        DataError: it is empty, or no path can be written so.
    """
    if not str(log):
        raise DataError("'' names no log; pass the path of one")
    path = with_home(log)
    try:
        path.stat()
    except FileNotFoundError:
        pass  # a pattern, or a mistake that the reader names
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{str(log)[:200]!r}: {reason}; check the path") from None
    return path


def local_file(path: Path) -> Path:
    """The path of a file that can be read again and again; a pipe is copied into a temporary file.

    Raises:
        DataError: it is a terminal or another device.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return path  # the reader says what is wrong with it
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        copy = _fresh("pipe")
        with decoding(path), path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        return copy
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise DataError(f"{path}: is a device, not a file; pass a file or a pipe")
    return path


def as_utf8(path: Path, encoding: str) -> Path:
    """A copy of a text file in UTF-8.

    Raises:
        DataError: a line is not text of that encoding.
    """
    with decoding(path), open_text(path) as file:
        if file.read(4) == b"PAR1":
            raise DataError(
                f"{path}: is a Parquet file, whose text has no other encoding; leave out encoding="
            )
    copy = _fresh(path.name.removesuffix(".gz").removesuffix(".zst"))
    import codecs

    decoder = codecs.getincrementaldecoder(encoding)()
    with decoding(path), open_text(path) as source, copy.open("w", encoding="utf-8", newline="") as target:
        try:
            while chunk := source.read(_CHUNK):
                target.write(decoder.decode(chunk))
            target.write(decoder.decode(b"", final=True))
        except UnicodeError:
            line = copy.read_bytes().count(b"\n") + 1
            raise DataError(
                f"{path}: near line {line} it is not {encoding} text; pass another encoding="
            ) from None
    return copy


def _fresh(name: str) -> Path:
    return Path(tempfile.mkdtemp(dir=_folder())) / name


@cache
def _folder() -> Path:
    """One temporary folder a process, till it ends: lazy frames may read from it."""
    folder, owner = tempfile.mkdtemp(prefix="recsys-spool-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child leaves its parent's copies alone
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
