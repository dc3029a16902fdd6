"""What a file is by its first bytes, and its text behind gzip or zstd."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from recsys.errors import DataError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_TO_PARQUET = "write it as Parquet, for example with python -c \"import polars; polars.{reader}('{path}')"

# First bytes, what they mean, and how to come from there to a log that is read. "{path}" is the file.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"BZh", "bzip2-compressed", "decompress it with bunzip2 -k {path}, or compress it with gzip"),
    (b"\xfd7zXZ\0", "xz-compressed", "decompress it with unxz -k {path}, or compress it with gzip"),
    (b"\x04\x22\x4d\x18", "lz4-compressed", "decompress it with lz4 -d {path}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and pass the file inside it"),
    (b"Rar!", "a RAR archive", "unpack it and pass the file inside it"),
    (b"PK\x03\x04", "a zip archive", "unpack it with unzip {path} and pass the file inside it"),
    (b"ARROW1", "an Arrow (Feather) file", _TO_PARQUET.format(reader="read_ipc", path="{path}")),
    (b"FEA1", "a Feather file of version 1", "write it as Parquet or CSV with the library that made it"),
    (b"ORC", "an ORC file", "write it as Parquet, for example with pyarrow.orc and pyarrow.parquet"),
    (b"Obj\x01", "an Avro file", _TO_PARQUET.format(reader="read_avro", path="{path}")),
    (b"SQLite format 3\0", "an SQLite database", "write its table as CSV, for example with sqlite3 -csv"),
    (b"\x89HDF\r\n", "an HDF5 file", "write its table as Parquet or CSV"),
    (b"\x93NUMPY", "a numpy file", "load it in Python and pass the array"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "save the sheet as CSV"),
    (b"%PDF", "a PDF", "pass the log itself"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    (b"\xff\xfe", "UTF-16 text", "pass encoding='utf-16'"),
    (b"\xfe\xff", "UTF-16 text", "pass encoding='utf-16'"),
)  # fmt: skip


def open_text(path: Path) -> "IO[bytes] | gzip.GzipFile":
    """Open a text log for bytes, through gzip or zstd where its first bytes say so."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_GZIP):
        return gzip.open(path, "rb")
    if start == _ZSTD:
        import pyarrow as pa

        return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def is_compressed(start: bytes) -> bool:
    """Whether first bytes are those of gzip or zstd, which are read as they are."""
    return start.startswith((_GZIP, _ZSTD))


def refuse_foreign(path: Path, head: bytes, *, encoding: str | None = None) -> None:
    """Refuse what is neither text nor Parquet, by its first bytes.

    Args:
        path: as messages name it.
        head: first bytes, decompressed.
        encoding: stated by the user: the bytes are then text.

    Raises:
        DataError: the line says what the file is and what to do.
    """
    if encoding is not None:
        return
    for start, kind, remedy in _FOREIGN:
        if head.startswith(start):
            if start == b"PK\x03\x04" and b"xl/" in head[:4096]:
                kind, remedy = "an Excel file", "save the sheet as CSV"
            if ".read_" in remedy or "polars.read" in remedy:
                remedy += f".write_parquet('{path}.parquet')\""
            raise DataError(f"{path}: is {kind}; {remedy.replace('{path}', str(path))}")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise DataError(
            f"{path}: is a Python pickle, which is never opened here; load it and write Parquet or CSV"
        )
    if head[257:262] == b"ustar":
        raise DataError(
            f"{path}: is a tar archive; unpack it with tar -xf {path} and pass the file inside it"
        )
    start_text = head[:200].lstrip().lower()
    if start_text.startswith((b"<!doctype", b"<html", b"<?xml", b"<table")):
        raise DataError(f"{path}: is a page of HTML or XML, not a log; fetch the file itself")


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn failures to decompress inside the block into one line.

    Raises:
        DataError: the file is cut off or damaged, or cannot be read.
    """
    try:
        yield
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({reason}); check the file") from None
