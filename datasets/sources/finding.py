"""Where a log comes from: a file, a known name or a frame, with the hash that tells it from others."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.datasets.folders import with_home
from recsys.datasets.prepared.files import sha256_of
from recsys.datasets.reading.frames import as_frame
from recsys.datasets.reading.parquet_parts import parquet_parts
from recsys.datasets.reading.spool import local_file, user_file
from recsys.datasets.reading.text_formats import check_file
from recsys.datasets.schema import nearest
from recsys.datasets.sources.known import KNOWN, fetch_known
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A log that was found.

    Attributes:
        log: path, folder of Parquet parts, or frame to open.
        name: short name of the dataset.
        file: name of the file or folder, or "frame".
        sha256: of the file's bytes, of all parts' names and bytes, or of a frame's values.
        size: bytes of the file or of all parts; None for a frame.
        origin: where a known log was fetched from; None for others.
        items: path of item metadata that came along.
        known: whether it is one of the known logs.
    """

    log: "Path | pl.DataFrame"
    name: str
    file: str
    sha256: str
    size: int | None = None
    origin: str | None = None
    items: Path | None = None
    known: bool = False


def find_source(log: Any, notify: Callable[[str], None] | None = None) -> Source:
    """Find a log by path, known name or as it lies in memory.

    A known name wins over a folder of the same name; write ``./ml-100k`` for the latter.

    Args:
        log: path of a file or of a folder of Parquet parts, a pattern of Parquet names, one of
            `recsys.datasets.sources.known.KNOWN`, or what `as_frame` takes.
        notify: receives one line where a known log comes from elsewhere than its official site, or where a
            folder has its name.

    Raises:
        ArgumentError: ``log`` is no log at all.
        DataError: nothing is there, or a known log cannot be fetched.
    """
    import polars as pl

    frame = as_frame(log)
    if frame is not None:
        collected = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        return Source(log=collected, name="frame", file="frame", sha256=_frame_sha256(collected))
    if is_known(log):
        if Path(log).exists() and notify is not None:
            notify(
                f"{log}: the known log is taken, not the folder of that name; write ./{log} for the folder"
            )
        fetched = fetch_known(log, notify=notify)
        return Source(
            log=fetched.interactions,
            name=log,
            file=fetched.interactions.name,
            sha256=sha256_of(fetched.interactions),
            size=fetched.interactions.stat().st_size,
            origin=fetched.origin,
            items=fetched.items,
            known=True,
        )
    if re.match(r"^[A-Za-z][A-Za-z0-9+.\-]+:/", str(log)):
        raise DataError(f"{log}: is an address, not a file; download it and pass the path of the copy")
    path = user_file(log)
    parts = parquet_parts(path)
    if parts:
        return _parts_source(path, parts)
    if not path.exists():
        close = nearest(str(log), KNOWN)
        hint = f"did you mean {close!r}?" if close else f"known logs are {', '.join(KNOWN)}"
        raise DataError(f"{log}: no such file; {hint}")
    local = local_file(path)
    check_file(local)
    source = Source(
        log=local, name=_short_name(path), file=path.name, sha256=sha256_of(local), size=local.stat().st_size
    )
    return source if local == path else replace(source, name="pipe", file="pipe")


def items_sha256(items: Any, what: str = "item") -> str | None:
    """Hex sha256 of a file or frame of items or users, or None without one.

    Args:
        items: the file or frame.
        what: it is of, for messages.

    Raises:
        DataError: the file cannot be read.
    """
    if items is None:
        return None
    frame = as_frame(items)
    if frame is not None:
        return _frame_sha256(frame.lazy().collect())
    try:
        return sha256_of(with_home(items))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{items}: {reason}; check the path of the {what} file") from None


def is_known(log: Any) -> bool:
    """Whether ``log`` is the name of a known log, and no file lies there."""
    return isinstance(log, str) and log in KNOWN and not Path(log).is_file()


def known_path(log: Any, notify: Callable[[str], None] | None = None) -> Any:
    """The cached file of a known name; anything else as it is."""
    return fetch_known(log, notify=notify).interactions if is_known(log) else log


def _parts_source(path: Path, parts: tuple[Path, ...]) -> Source:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        name = part.relative_to(path).as_posix() if path.is_dir() else part.name
        digest.update(f"{name}\0{sha256_of(part)}\n".encode())
        size += part.stat().st_size
    folder = path if path.is_dir() else path.parent
    name = folder.resolve().name or "parts"
    return Source(log=path, name=name, file=path.name, sha256=digest.hexdigest(), size=size)


def _short_name(path: Path) -> str:
    stem = path.name.split(".")[0] or path.name
    # Folders are named after the dataset, files after what they hold.
    generic = stem in ("interactions", "ratings", "u", "events", "log", "train", "data", "reviews")
    parent = path.resolve().parent.name
    return parent if generic and parent else stem


def _frame_sha256(frame: "pl.DataFrame") -> str:
    """Hash of a frame's columns in order: names, types and values; nested ones and objects are left out."""
    import io

    import polars as pl

    digest = hashlib.sha256()
    for column in frame.get_columns():
        if column.dtype.is_nested() or column.dtype == pl.Object:
            continue
        digest.update(f"{column.name}\0{column.dtype}\0".encode())
        for start in range(0, column.len(), 1_000_000):
            piece = column.slice(start, 1_000_000)
            if piece.dtype.is_numeric() and not piece.null_count():
                digest.update(piece.to_numpy().tobytes())
            else:
                # Neither of these can be written as CSV.
                if piece.dtype == pl.Binary:
                    piece = piece.bin.encode("hex")
                elif piece.dtype == pl.Duration:
                    piece = piece.cast(pl.Int64)
                text = io.StringIO()
                piece.to_frame().write_csv(text)
                digest.update(text.getvalue().encode())
    return digest.hexdigest()
