"""Raw ids from files: one a line, or a Parquet column."""

from pathlib import Path
from typing import Any

from recsys.errors import DataError


def read_ids(path: Path | None) -> list[str] | None:
    """Ids from a file, one a line; None for no file.

    Raises:
        DataError: the file cannot be read or holds none.
    """
    if path is None:
        return None
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of ids ({error})") from None
    if not ids:
        raise DataError(f"{path}: holds no ids; write one id a line")
    return ids


def read_user_ids(path: Path) -> list[Any]:
    """Ids of users from a file, one a line, or from the column user_id of a Parquet file.

    Raises:
        DataError: the file cannot be read, or holds no such column.
    """
    if path.suffix != ".parquet":
        return read_ids(path) or []
    import polars as pl

    try:
        frame = pl.scan_parquet(path, glob=False)
        columns = frame.collect_schema().names()
        if "user_id" not in columns:
            raise DataError(
                f"{path}: no column user_id among {', '.join(columns[:12])}; rename the one of users"
            )
        return frame.select("user_id").collect()["user_id"].to_list()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: cannot be read as Parquet ({reason}); write it again") from None
