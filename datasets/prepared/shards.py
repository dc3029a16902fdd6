"""The manifest of a store of shards: what ``shards.json`` holds, written and read. Needs numpy alone.

A store of shards is a folder of ordinary prepared datasets with one catalog. Beside ``shards.json`` lie the
files that all shards share: ``items.parquet``, ``item_counts.npy`` int64 (V,) training events, and the items'
features where they were asked for. A user lies whole in one shard, by a hash of the id.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.datasets.prepared.files import META_FILE, fingerprint
from recsys.datasets.prepared.user_hash import USER_HASH
from recsys.errors import DataError

__all__ = [
    "COUNTS_FILE",
    "MANIFEST_FILE",
    "ShardEntry",
    "fingerprint_of",
    "is_sharded",
    "read_manifest",
    "shard_name",
    "write_manifest",
]

FORMAT = "recsys-shards"
FORMAT_VERSION = 1
MANIFEST_FILE = "shards.json"
COUNTS_FILE = "item_counts.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """What the manifest knows of one shard, so that it need not be opened.

    Attributes:
        name: of its folder.
        users: in it.
        events: of these.
        fingerprint: hex sha256 over its arrays and ids.
        meta_sha256: of its meta.json.
        most_trained: training events of the user who has most.
        untrained_users: users without a training event.
        train_events: of all its users.
        valid_users: users with a validation event.
        test_users: users with a test event.
        tested_after_history: users with a test event after another event.
    """

    name: str
    users: int
    events: int
    fingerprint: str
    meta_sha256: str
    most_trained: int
    untrained_users: int
    train_events: int
    valid_users: int
    test_users: int
    tested_after_history: int


def shard_name(number: int, of: int) -> str:
    """Folder of one shard, its number counted from 0."""
    return f"shard-{number:05d}-of-{of:05d}"


def is_sharded(folder: Path) -> bool:
    """Whether a folder holds a store of shards."""
    return (folder / MANIFEST_FILE).is_file()


def write_manifest(folder: Path, described: dict[str, Any]) -> None:
    """Write shards.json with the hash of its own contents.

    Args:
        folder: of the store.
        described: everything but the format and the hash.

    Raises:
        OSError: it cannot be written.
    """
    body = {"format": FORMAT, "format_version": FORMAT_VERSION, "user_hash": USER_HASH, **described}
    text = json.dumps({**body, "sha256": _own_hash(body)}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> tuple[dict[str, Any], tuple[ShardEntry, ...]]:
    """Read and check shards.json.

    Returns:
        Its contents, and what it knows of each shard, in order.

    Raises:
        DataError: it is damaged, of another version, or its shards are not those of one store.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); prepare the log again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: is no manifest of shards; prepare the log again")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version} is not known here ({FORMAT_VERSION} is); prepare the log again"
        )
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if manifest.get("sha256") != _own_hash(body):
        raise DataError(f"{path}: the file changed since it was written (sha256); prepare the log again")
    if manifest["user_hash"] != USER_HASH:
        raise DataError(
            f"{path}: its users lie by the hash {manifest['user_hash']!r}, {USER_HASH!r} is known here;"
            " prepare the log again"
        )
    shards = tuple(ShardEntry(**entry) for entry in manifest["shards"])
    for number, shard in enumerate(shards):
        if shard.name != shard_name(number, len(shards)):
            raise DataError(f"{path}: shard {number} is called {shard.name!r}; prepare the log again")
        if not (folder / shard.name / META_FILE).is_file():
            raise DataError(f"{folder / shard.name}: the shard is missing; prepare the log again")
    return manifest, shards


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """Hex sha256 over the data of all shards, in order, and of their catalog."""
    shards = "".join(f"{shard['fingerprint']}\n" for shard in manifest["shards"])
    return hashlib.sha256((fingerprint(manifest) + "\n" + shards).encode()).hexdigest()


def _own_hash(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
