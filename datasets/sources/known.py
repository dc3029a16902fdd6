"""Public logs by name: fetched once, checked against published hashes, kept in the user's cache folder.

The order of rows in a file decides the leave-one-out test item wherever a user's last events share a second
(44% of the users of ml-100k), so a known log is one exact file and not "the 100,000 ratings in some order".
"""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.datasets.folders import WriteError, replacing_folder, with_home
from recsys.datasets.prepared.files import sha256_of
from recsys.datasets.sources.download import download
from recsys.datasets.sources.recbole_wheel import RunCommand, ml_100k_from_wheel, run_command
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_LICENCE = (
    "GroupLens terms: research use with acknowledgement; no commercial use and no redistribution without"
    " permission (grouplens.org/datasets/movielens)"
)
_SITE = "https://files.grouplens.org/datasets/movielens"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """How a known log is fetched.

    Attributes:
        description: one line.
        users, items, rows: published counts.
        url, archive_sha256: of the official archive.
        log: path of the interactions inside it.
        titles: path of the item file inside it.
        log_sha256: of the interactions; None to trust the archive's hash.
    """

    description: str
    users: int
    items: int
    rows: int
    url: str
    archive_sha256: str
    log: str
    titles: str
    log_sha256: str | None = None


# Archive hashes as TensorFlow Datasets publishes them (tensorflow/datasets,
# tensorflow_datasets/url_checksums/movielens.txt); the hash of u.data as ankane/disco and others pin it.
_RECIPES = {
    "ml-100k": _Recipe(
        description="MovieLens 100K: movie ratings, September 1997 to April 1998",
        users=943,
        items=1_682,
        rows=100_000,
        url=f"{_SITE}/ml-100k.zip",
        archive_sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        log="ml-100k/u.data",
        titles="ml-100k/u.item",
        log_sha256="06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    ),
    "ml-1m": _Recipe(
        description="MovieLens 1M: movie ratings, April 2000 to February 2003",
        users=6_040,
        items=3_706,
        rows=1_000_209,
        url=f"{_SITE}/ml-1m.zip",
        archive_sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        log="ml-1m/ratings.dat",
        titles="ml-1m/movies.dat",
    ),
}
KNOWN = tuple(_RECIPES)
"""Names of the known logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDataset:
    """What `recsys datasets` lists.

    Attributes:
        name: what to pass for the log.
        description: one line.
        users, items, rows: counts.
        licence: what the owner allows.
        url: official archive.
        cached: path of the log in the cache, or None where it was not fetched yet.
    """

    name: str
    description: str
    users: int
    items: int
    rows: int
    licence: str
    url: str
    cached: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedLog:
    """A known log in the cache.

    Attributes:
        interactions: the log file, byte for byte the official one.
        items: table ``item_id``, ``title``, ``genres`` (tab-separated, UTF-8).
        origin: where the bytes came from.
    """

    interactions: Path
    items: Path
    origin: str


def list_known() -> list[KnownDataset]:
    """The known logs, and which of them are in the cache."""
    found = []
    for name, recipe in _RECIPES.items():
        cached = _cached(name)
        found.append(
            KnownDataset(
                name=name,
                description=recipe.description,
                users=recipe.users,
                items=recipe.items,
                rows=recipe.rows,
                licence=_LICENCE,
                url=recipe.url,
                cached=cached.interactions if cached else None,
            )
        )
    return found


def cache_folder() -> Path:
    """Folder of fetched logs: ``$RECSYS_CACHE`` or the platform's user cache."""
    chosen = os.environ.get("RECSYS_CACHE")
    if chosen:
        return with_home(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("recsys", appauthor=False))


def fetch_known(
    name: str, *, notify: Callable[[str], None] | None = None, run: RunCommand = run_command
) -> FetchedLog:
    """Find a known log in the cache or fetch it.

    ml-100k is also inside the PyPI wheel recbole 1.2.1, byte for byte (its file without the header line has
    the hash of u.data), and is taken from there where the official site cannot be reached.

    Args:
        name: one of `KNOWN`.
        notify: receives one line where the log comes from elsewhere than its official site.
        run: runs pip; replaced in tests.

    Raises:
        DataError: the name is unknown, or the log cannot be fetched; the line says how to do it by hand.
    """
    if name not in _RECIPES:
        raise DataError(f"{name!r} is not a known log; known are {', '.join(KNOWN)}")
    cached = _cached(name)
    if cached is not None:
        return cached
    try:
        return _fetch(name, notify, run)
    except WriteError as error:
        raise DataError(
            f"{error} for fetched logs with the environment variable RECSYS_CACHE (now {cache_folder()})"
        ) from None


def _fetch(name: str, notify: Callable[[str], None] | None, run: RunCommand) -> FetchedLog:
    recipe = _RECIPES[name]
    archive = cache_folder() / "downloads" / f"{name}.zip"
    try:
        download(recipe.url, archive, recipe.archive_sha256)
    except WriteError:
        raise
    except DataError as error:
        by_hand = f"download it by hand and pass the path of {Path(recipe.log).name}"
        if name != "ml-100k":
            raise DataError(f"{error}; {by_hand}") from None
        if notify is not None:
            notify(f"{error}; taking the same file from the PyPI package recbole 1.2.1")
        try:
            log, items = ml_100k_from_wheel(run)
        except DataError as second:
            raise DataError(f"{error}; nor from PyPI ({second}); {by_hand}") from None
        return _keep(name, log, items, "recbole==1.2.1 (PyPI)")
    log, items = _from_archive(name, archive, recipe)
    fetched = _keep(name, log, items, recipe.url)
    archive.unlink(missing_ok=True)
    return fetched


def _cached(name: str) -> FetchedLog | None:
    recipe, folder = _RECIPES[name], cache_folder() / name
    log, items = folder / Path(recipe.log).name, folder / "items.tsv"
    try:
        recorded = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        intact = all(sha256_of(path) == recorded["sha256"][path.name] for path in (log, items))
        origin = str(recorded["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not intact or recipe.log_sha256 not in (None, recorded["sha256"][log.name]):
        return None
    return FetchedLog(interactions=log, items=items, origin=origin)


def _from_archive(name: str, archive: Path, recipe: _Recipe) -> "tuple[bytes, pl.DataFrame]":
    from recsys.datasets.reading.item_metadata import read_movielens_titles

    try:
        with zipfile.ZipFile(archive) as opened:
            log, titles = opened.read(recipe.log), opened.read(recipe.titles)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{archive}: not the {name} archive ({error}); delete the file and try again"
        ) from None
    return log, read_movielens_titles(titles)


def _keep(name: str, log: bytes, items: "pl.DataFrame", origin: str) -> FetchedLog:
    """Write a log and its items into the cache, whole or not at all."""
    recipe, folder = _RECIPES[name], cache_folder() / name
    with replacing_folder(folder, overwrite=True) as temporary:
        log_path, items_path = temporary / Path(recipe.log).name, temporary / "items.tsv"
        log_path.write_bytes(log)
        if recipe.log_sha256 is not None and sha256_of(log_path) != recipe.log_sha256:
            raise DataError(f"{origin}: its {log_path.name} is not the published one (sha256)")
        items.write_csv(items_path, separator="\t")
        hashes = {path.name: sha256_of(path) for path in (log_path, items_path)}
        (temporary / "source.json").write_text(
            json.dumps({"origin": origin, "sha256": hashes}, indent=2) + "\n", encoding="utf-8"
        )
    return FetchedLog(interactions=folder / log_path.name, items=folder / "items.tsv", origin=origin)
