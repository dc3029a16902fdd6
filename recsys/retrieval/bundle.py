"""An index on disk: `vectors.safetensors` and `manifest.json` in a folder that is whole or absent.

Never FAISS's own format, which carries no checksum: a flipped bit there loads and gives wrong items.
"""

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.files import sha256_of
from recsys.retrieval.metric import METRICS

FORMAT = "recsys item index"
VERSION = 1
VECTORS = "vectors.safetensors"
MANIFEST = "manifest.json"
_MANIFEST_LIMIT_BYTES = 1_000_000
_REMEDY = "build the index again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What an index says of itself."""

    kind: str
    """The kind that was asked for; "auto" chooses again where the index is opened."""
    metric: str
    """The metric of the scores."""
    items: int
    """Number of vectors."""
    width: int
    """Length of each."""
    fingerprint: str
    """Of the encoder that made them."""


def write_bundle(folder: str | Path, manifest: Manifest, vectors: Tensor) -> None:
    """Write an index to a temporary folder beside the target and rename it.

    Raises:
        RetrievalError: the folder holds something that is not an index, or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = Path(folder)
    if target.exists() and not _replaceable(target):
        raise RetrievalError(f"{target} holds something that is not an item index: choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _write_error(target, error) from None
    fresh, old = work / "new", work / "old"
    try:
        fresh.mkdir()
        save_file({"vectors": vectors}, fresh / VECTORS)
        record = {
            "format": FORMAT,
            "version": VERSION,
            **asdict(manifest),
            "vectors": {
                "file": VECTORS,
                "bytes": (fresh / VECTORS).stat().st_size,
                "sha256": sha256_of(fresh / VECTORS),
            },
        }
        (fresh / MANIFEST).write_bytes(_encode(record))
        for name in (VECTORS, MANIFEST):
            _sync(fresh / name)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        with suppress(OSError):  # some file systems cannot sync a folder
            _sync(target.parent)
    except (OSError, SafetensorError) as error:
        raise _write_error(target, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_bundle(folder: str | Path, fingerprint: str | None = None) -> tuple[Manifest, Tensor]:
    """Read an index, refusing whatever differs from what was written.

    Args:
        folder: where it lies.
        fingerprint: of the encoder that will make the queries; None does not compare.

    Returns:
        The manifest and the (V, d) float32 vectors.

    Raises:
        RetrievalError: names the file and the remedy.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    manifest, size, sha256 = _read_manifest(path / MANIFEST)
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise RetrievalError(
            f"{path / MANIFEST}: made by another model (fingerprint {manifest.fingerprint[:12]}, "
            f"this one is {fingerprint[:12]}); {_REMEDY}"
        )
    file = path / VECTORS
    try:
        found = file.stat().st_size
        if found != size:
            raise RetrievalError(f"{file}: {found} bytes where the manifest says {size}; {_REMEDY}")
        if sha256_of(file) != sha256:
            raise RetrievalError(f"{file}: damaged, its sha256 is not the manifest's; {_REMEDY}")
        vectors = load_file(file)["vectors"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RetrievalError(f"{file}: cannot be read ({error}); {_REMEDY}") from None
    if vectors.shape != (manifest.items, manifest.width) or vectors.dtype != torch.float32:
        raise RetrievalError(
            f"{file}: {vectors.dtype} of shape {tuple(vectors.shape)} where the manifest says float32 "
            f"({manifest.items}, {manifest.width}); {_REMEDY}"
        )
    return manifest, vectors


def _read_manifest(file: Path) -> tuple[Manifest, int, str]:
    """The manifest, and the size and sha256 of the vectors' file."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MANIFEST_LIMIT_BYTES)
    except FileNotFoundError:
        raise RetrievalError(f"{file}: not found, {file.parent} holds no item index; {_REMEDY}") from None
    except OSError as error:
        raise RetrievalError(f"{file}: cannot be read ({error.strerror or error}); {_REMEDY}") from None
    damaged = RetrievalError(f"{file}: damaged; {_REMEDY}")
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        raise damaged from None
    # The bytes must be those that these values are written as, checksum included: no byte is free to change.
    if not isinstance(record, dict) or record.pop("sha256", None) is None or _encode(record) != raw:
        raise damaged
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise RetrievalError(
            f"{file}: format {record.get('format')!r} version {record.get('version')!r} is not known here; "
            f"{_REMEDY}, or update recsys"
        )
    try:
        manifest = Manifest(**{name.name: record[name.name] for name in fields(Manifest)})
        size, sha256 = record["vectors"]["bytes"], record["vectors"]["sha256"]
    except (KeyError, TypeError):
        raise damaged from None
    if manifest.metric not in METRICS:
        raise damaged
    return manifest, size, sha256


def _encode(record: dict[str, Any]) -> bytes:
    """Canonical JSON of a manifest, with the sha256 of its other fields."""
    plain = json.dumps(record, sort_keys=True, indent=2).encode()
    return json.dumps(
        record | {"sha256": hashlib.sha256(plain).hexdigest()}, sort_keys=True, indent=2
    ).encode()


def _replaceable(target: Path) -> bool:
    if not target.is_dir():
        return False
    names = {entry.name for entry in target.iterdir()}
    return names <= {MANIFEST, VECTORS}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(target: Path, error: Exception) -> RetrievalError:
    why = getattr(error, "strerror", None) or error
    return RetrievalError(f"{target}: cannot be written ({why}); choose another folder or free space")
