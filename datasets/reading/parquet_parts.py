"""A log in many Parquet files: a folder as Spark, Hive or DuckDB write it, or a pattern of names."""

import glob
from collections.abc import Iterator
from pathlib import Path

from recsys.errors import DataError

_SUFFIXES = (".parquet", ".pq")
# A prepared dataset holds .parquet files, too, and is no log.
_PREPARED = (("meta.json", "offsets.npy"), ("shards.json", "item_counts.npy"))


def parquet_parts(path: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder, or of a pattern, sorted by name; () where there are none.

    Of the folders inside, those named ``column=value`` are looked into.

    Names that begin with a dot or an underscore are no data, by the custom of those who write such folders.
    A path that exists is never taken for a pattern.
    """
    if path.is_dir():
        if any(all((path / name).is_file() for name in files) for files in _PREPARED):
            return ()
        return tuple(sorted(_inside(path), key=lambda part: part.relative_to(path).parts))
    if path.exists() or not glob.has_magic(str(path)):
        return ()
    # The part of the path that exists is a name, whatever it holds.
    pattern = str(Path(glob.escape(str(path.parent))) / path.name) if path.parent.is_dir() else str(path)
    matched = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    for part in matched:
        if part.suffix not in _SUFFIXES:
            raise DataError(
                f"{path}: the pattern matches {part}, which is no .parquet file; only Parquet parts are read"
                " together"
            )
    return tuple(matched)


def _inside(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name[0] in "._":
            continue
        if entry.suffix in _SUFFIXES and entry.is_file():
            yield entry
        elif "=" in entry.name and entry.is_dir():
            yield from _inside(entry)


def has_hive_columns(parts: tuple[Path, ...]) -> bool:
    """Whether folders on the way are named ``column=value``."""
    return any("=" in folder.name for part in parts for folder in part.parents)
