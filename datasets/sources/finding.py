"""Where a log comes from: a file, a known name or a frame, with the hash that tells it from others."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.datasets.prepared.files import sha256_of
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
        log: path or frame to open.
        name: short name of the dataset.
        file: file name, or "frame".
        sha256: of the file's bytes, or of a frame's values.
        size: bytes of the file; None for a frame.
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


def find_source(
    log: "str | Path | pl.DataFrame | pl.LazyFrame", notify: Callable[[str], None] | None = None
) -> Source:
    """Find a log by path, known name or frame.

    A known name wins over a folder of the same name; write ``./ml-100k`` for the latter.

    Args:
        log: path of a file, one of `recsys.datasets.sources.known.KNOWN`, or a polars frame.
        notify: receives one line where a known log comes from elsewhere than its official site.

    Raises:
        DataError: nothing is there, or a known log cannot be fetched.
    """
    import polars as pl

    if isinstance(log, pl.LazyFrame):
        log = log.collect()
    if isinstance(log, pl.DataFrame):
        return Source(log=log, name="frame", file="frame", sha256=_frame_sha256(log))
    if isinstance(log, str) and log in KNOWN and not Path(log).is_file():
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
    path = Path(log).expanduser()
    if not path.exists():
        close = nearest(str(log), KNOWN)
        hint = f"did you mean {close!r}?" if close else f"known logs are {', '.join(KNOWN)}"
        raise DataError(f"{log}: no such file; {hint}")
    check_file(path)
    return Source(
        log=path, name=_short_name(path), file=path.name, sha256=sha256_of(path), size=path.stat().st_size
    )


def known_path(log: Any, notify: Callable[[str], None] | None = None) -> Any:
    """The cached file of a known name; anything else as it is."""
    if isinstance(log, str) and log in KNOWN and not Path(log).is_file():
        return fetch_known(log, notify=notify).interactions
    return log


def _short_name(path: Path) -> str:
    stem = path.name.split(".")[0] or path.name
    # Folders are named after the dataset, files after what they hold.
    generic = stem in ("interactions", "ratings", "u", "events", "log", "train", "data", "reviews")
    parent = path.resolve().parent.name
    return parent if generic and parent else stem


def _frame_sha256(frame: "pl.DataFrame") -> str:
    """Hash of a frame's columns in order: names, types and values; lists and structs are left out."""
    import io

    digest = hashlib.sha256()
    for column in frame.get_columns():
        if column.dtype.is_nested():
            continue
        digest.update(f"{column.name}\0{column.dtype}\0".encode())
        for start in range(0, column.len(), 1_000_000):
            piece = column.slice(start, 1_000_000)
            if piece.dtype.is_numeric() and not piece.null_count():
                digest.update(piece.to_numpy().tobytes())
            else:
                text = io.StringIO()
                piece.to_frame().write_csv(text)
                digest.update(text.getvalue().encode())
    return digest.hexdigest()
