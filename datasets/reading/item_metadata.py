"""Read what is known of items: titles and other columns, from Parquet, CSV, JSON lines or MovieLens files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.folders import with_home
from recsys.datasets.reading.columns import scan_columns
from recsys.datasets.reading.frames import as_frame
from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.reading.text_formats import check_file, detect_layout
from recsys.datasets.schema import ITEM, find_column, plain_name
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_TITLE_NAMES = ("title", "movietitle", "itemtitle", "name", "itemname", "productname", "producttitle")

# Order of the flags at the end of a line of ml-100k's u.item, as its u.genre lists them.
_GENRE_LINE = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror"
    " Musical Mystery Romance Sci-Fi Thriller War Western"
)
_GENRES = _GENRE_LINE.split()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemFile:
    """An item file as it stands, a row for each of its lines.

    Attributes:
        label: its path, or "items" for a frame.
        frame: ``item_id``, ``title`` where a title column was found, and the other columns.
        names: by the names that the file itself has for columns, their names in the frame.
        types: RecBole's types ("token_seq", "float_seq", ...) of the frame's columns, where the file states
            them.
        long: whether the file had a line for each (id, feature, value), which are columns now.
    """

    label: str
    frame: "pl.DataFrame"
    names: dict[str, str]
    types: dict[str, str]
    long: bool


def read_item_metadata(path: Any, *, item_column: str | None = None) -> "pl.DataFrame":
    """Read an item file, each item once.

    Args:
        path: as in `read_item_file`.
        item_column: likewise.

    Returns:
        Frame ``item_id`` (text or whole numbers, each once), ``title`` where a title column was found, and
        the other columns.

    Raises:
        DataError: the file cannot be read or has no item column.
    """
    return distinct_items(read_item_file(path, item_column=item_column))


def distinct_items(items: ItemFile) -> "pl.DataFrame":
    """The rows of an item file that name an item, each item's first one."""
    return items.frame.drop_nulls(ITEM).unique(ITEM, keep="first", maintain_order=True)


def read_item_file(path: Any, *, item_column: str | None = None) -> ItemFile:
    """Read an item file with all its rows.

    Args:
        path: Parquet, CSV/TSV, JSON lines, RecBole ``.item``, or MovieLens ``movies.dat`` or ``u.item``;
            or what `as_frame` takes. A file of the columns id, feature and value, a line for each feature of
            an item (RecTools), becomes a row for each item and a column for each feature.
        item_column: name of the id column, or None to find it by its usual spellings.

    Raises:
        DataError: the file cannot be read or has no item column.
    """
    import polars as pl

    given = as_frame(path)
    label = str(path) if given is None else "items"
    layout = None
    if given is not None:
        frame = given.lazy().collect()
    else:
        source = with_home(path)
        check_file(source)
        if source.name in ("u.item", "movies.dat"):
            frame = read_movielens_titles(source.read_bytes())
            return ItemFile(
                label=label, frame=frame, names={name: name for name in frame.columns}, types={}, long=False
            )
        layout = detect_layout(source, ReadOptions())
        if layout.columns and not layout.header:
            raise DataError(f"{path}: an item file needs a header line that names item_id and title")
        with reading(label, source, layout.separator):
            frame = scan_columns(source, layout).collect()
    long = _is_long(frame.columns)
    if long:
        frame = _widened(frame, label)
    item = item_column if item_column is not None else find_column(ITEM, frame.columns)
    if item is None or item not in frame.columns:
        raise DataError(f"{label}: no item column among {', '.join(frame.columns[:12])}; name it {ITEM}")
    by_plain = {plain_name(name): name for name in reversed(frame.columns)}
    title = next(
        (by_plain[name] for name in _TITLE_NAMES if name in by_plain and by_plain[name] != item), None
    )
    renamed = {item: ITEM} | ({title: "title"} if title is not None else {})
    taken = set(renamed.values())
    others = [name for name in frame.columns if name not in renamed and name not in taken and name != "count"]
    types = dict(zip(layout.columns, layout.types, strict=False)) if layout is not None else {}
    frame = frame.select([*renamed, *others]).rename(renamed)
    if (
        layout is not None
        and layout.format == "inter"
        and "release_year" in frame.columns
        and title is not None
    ):
        # RecBole takes the year out of MovieLens's titles.
        year = pl.col("release_year")
        with_year = pl.when(year.str.contains(r"^\d{4}$")).then(pl.format("{} ({})", "title", year))
        frame = frame.with_columns(with_year.otherwise(pl.col("title")).alias("title"))
    names = renamed | {name: name for name in others}
    typed = {names[name]: kind for name, kind in types.items() if name in names}
    return ItemFile(label=label, frame=frame, names=names, types=typed, long=long)


def _is_long(columns: list[str]) -> bool:
    plain = [plain_name(name) for name in columns]
    return (
        len(plain) == 3
        and sorted(plain)[0] == "feature"
        and "value" in plain
        and ("id" in plain or find_column(ITEM, columns) is not None)
    )


def _widened(frame: "pl.DataFrame", label: str) -> "pl.DataFrame":
    """A row for each item and a column for each feature of (id, feature, value): lists where one has many."""
    import polars as pl

    by_plain = {plain_name(name): name for name in frame.columns}
    feature, value = by_plain["feature"], by_plain["value"]
    item = next(name for name in frame.columns if name not in (feature, value))
    if frame[item].null_count() or frame[feature].null_count():
        raise DataError(f"{label}: a line of id, feature and value lacks its id or feature; fill it in")
    wide = frame.select(pl.col(item).unique(maintain_order=True).alias(ITEM))
    for name in frame[feature].cast(pl.String).unique(maintain_order=True):
        if plain_name(name) == plain_name(ITEM):
            raise DataError(f"{label}: a feature is called {name!r}, as ids are; rename it")
        rows = frame.filter(pl.col(feature).cast(pl.String) == name)
        lists = rows.group_by(pl.col(item).alias(ITEM), maintain_order=True).agg(pl.col(value).alias(name))
        if lists[name].list.len().max() == 1:
            lists = lists.with_columns(pl.col(name).list.first())
        wide = wide.join(lists, on=ITEM, how="left", maintain_order="left")
    return wide


def item_rows(
    ids: "pl.Series", counts: NDArray[np.int64], metadata: "pl.DataFrame | None"
) -> "tuple[pl.DataFrame, int]":
    """Put what is known of each item of a catalog into its row.

    Args:
        ids: (V,) item ids.
        counts: (V,) training events.
        metadata: from `read_item_metadata`; ids that the catalog lacks are left out.

    Returns:
        Frame ``item_id``, ``count`` int64, metadata columns (null where nothing is known); and the number
        of items that the metadata knows.
    """
    import polars as pl

    table = pl.DataFrame([ids.alias(ITEM), pl.Series("count", counts, dtype=pl.Int64)])
    if metadata is None:
        return table, 0
    fitting = metadata.with_columns(as_ids(metadata[ITEM], ids), __known=True)
    fitting = fitting.drop_nulls(ITEM).unique(ITEM, keep="first", maintain_order=True)
    joined = table.join(fitting, on=ITEM, how="left", maintain_order="left")
    return joined.drop("__known"), int(joined["__known"].sum())


def unmatched(ids: "pl.Series", metadata: "pl.DataFrame", titled: int, label: str) -> str | None:
    """A line where an item file knows next to nothing of a catalog, with an id of each; else None."""
    if titled * 10 >= ids.len():
        return None
    return (
        f"{label}: knows {titled} of {ids.len()} items; its ids are like {metadata[ITEM][0]!r}, those of the"
        f" log like {ids[0]!r}"
    )


def as_ids(named: "pl.Series", ids: "pl.Series") -> "pl.Series":
    """Ids of an item file by the rule of the log's: 42, " 42 " and 42.0 are one item; null fits none."""
    import polars as pl

    text = named.cast(pl.String).str.strip_chars()
    if not ids.dtype.is_integer():
        return text
    whole = text.str.replace(r"^(-?\d+)\.0*$", "${1}")
    # 007 is no spelling of 7, or two items would be one.
    usual = whole.str.contains(r"^(0|-?[1-9]\d*)$")
    return whole.set(~usual.fill_null(False), None).cast(pl.Int64, strict=False)


def _decoded(content: bytes) -> str:
    """Text of a MovieLens file: UTF-8 since 10M, ISO 8859-1 before."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_movielens_titles(content: bytes) -> "pl.DataFrame":
    """Read the bytes of movies.dat (``id::title::genres``) or u.item (``id|title|...|19 flags``).

    Returns:
        Frame ``item_id`` int64, ``title``, ``genres`` joined by ``|``.

    Raises:
        DataError: a line has neither form.
    """
    import polars as pl

    rows = []
    # Not splitlines: a title may hold what Unicode calls a line end.
    for number, line in enumerate(_decoded(content).replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        colons, bars = line.split("::"), line.split("|")
        if len(colons) == 3 and colons[0].isdigit():
            rows.append((int(colons[0]), colons[1].strip(), colons[2].strip()))
        elif len(bars) == 5 + len(_GENRES) and bars[0].isdigit():
            genres = "|".join(
                name for name, flag in zip(_GENRES, bars[5:], strict=True) if flag.strip() == "1"
            )
            rows.append((int(bars[0]), bars[1].strip(), genres))
        else:
            raise DataError(
                f"item file, line {number}: neither id::title::genres nor the 24 fields of u.item"
            )
    return pl.DataFrame(rows, schema={ITEM: pl.Int64, "title": pl.String, "genres": pl.String}, orient="row")
