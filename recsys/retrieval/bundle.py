"""An index on disk: safetensors files named by their contents, and a manifest that is written last.

    manifest.json                    what the index is, and the size and sha256 of every file
    vectors-0123456789ab.safetensors
    parts-....safetensors            a graph or lists, where the kind has any
    golden-....safetensors           queries with known answers
    categories-....safetensors       where items have categories
    extra-....safetensors            where the maker keeps tensors with it
    changes-....safetensors          where items came or went since

Replacing the manifest is the one step that makes a new index of an old one: killed at any moment, a save
leaves the old or the new. Changes to the catalog replace the last file and the manifest, and touch no other
file. Nothing here is FAISS's own format, which carries no checksum: a flipped bit there
loads and gives wrong items.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from recsys.errors import RetrievalError
from recsys.files import is_still, lock_on, save_tensors, settle, sha256_of, write_error
from recsys.retrieval.metric import METRICS

FORMAT = "recsys item index"
VERSION = 2
MANIFEST = "manifest.json"
_OURS = re.compile(
    r"(vectors|parts|golden|categories|extra|changes)-[0-9a-f]{12}\.safetensors|\.new-\w+|manifest\.json"
)
_MANIFEST_LIMIT_BYTES = 1_000_000
_REMEDY = "build the index again"

Contents = dict[str, dict[str, Tensor]]
"""File ("vectors", "parts", "golden", "categories", "extra", "changes") to its tensors by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What an index says of itself."""

    kind: str
    """The kind that was asked for; "auto" chooses again where the index is opened."""
    built_kind: str
    """The kind that it was built as: that of its parts."""
    metric: str
    """The metric of the scores."""
    items: int
    """Number of vectors."""
    width: int
    """Length of each."""
    fingerprint: str
    """Of the encoder that made them."""
    vocabulary: str
    """Digest of the item ids that the rows stand for; empty if none was given."""
    options: dict[str, Any]
    """Fields of `IndexOptions`."""
    golden_recall: float
    """Share of the golden queries' best items that the built index found; 1 for exact kinds."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the maker wants to find again; plain JSON."""


def bundle_exists(folder: str | Path) -> bool:
    """Whether a folder holds a saved index, whole or damaged."""
    return (Path(folder) / MANIFEST).exists()


def write_bundle(folder: str | Path, manifest: Manifest, contents: Contents) -> str:
    """Write an index; one that is already there is replaced as a whole.

    Returns:
        The sha256 that names this state of the folder; see `amend_bundle`.

    Raises:
        RetrievalError: the folder holds something that is not an index, or cannot be written.
    """
    target = Path(folder)
    if target.exists() and not _replaceable(target):
        raise RetrievalError(f"{target} holds something that is not an item index: choose another folder")
    with _writing(target):
        record: dict[str, Any] = {"format": FORMAT, "version": VERSION, **asdict(manifest), "files": {}}
        for name, tensors in contents.items():
            record["files"][name] = _write_file(target, name, tensors)
        return _publish(target, record)


def amend_bundle(folder: str | Path, state: str, name: str, tensors: dict[str, Tensor] | None) -> str:
    """Replace one file of an index, and leave the others as they lie.

    Args:
        folder: of the index.
        state: what `write_bundle`, `amend_bundle` or `read_bundle` called the state that this is made from.
        name: of the file.
        tensors: its new contents; None takes it away.

    Returns:
        The name of the new state.

    Raises:
        RetrievalError: somebody wrote the index in between, or the folder cannot be written.
    """
    target = Path(folder)
    if not bundle_exists(target):
        raise RetrievalError(f"{target / MANIFEST}: not found, {target} holds no item index; {_REMEDY}")
    with _writing(target):
        record = _parsed(target / MANIFEST, _bytes_of(target / MANIFEST))
        if record.pop("sha256") != state:
            raise RetrievalError(
                f"{target}: another process changed this index in between; open it again and repeat"
            )
        record["files"].pop(name, None)
        if tensors is not None:
            record["files"][name] = _write_file(target, name, tensors)
        return _publish(target, record)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Hold the lock of a folder that is there; what cannot be written is said in one line."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with lock_on(target, wait=True):
            yield
    except OSError as error:
        raise RetrievalError(str(write_error(target, error))) from None


def _write_file(target: Path, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write tensors under a name made of their contents; return the manifest's entry."""
    with _temporary(target) as fresh:
        save_tensors(tensors, fresh)
        digest = sha256_of(fresh)
        file = f"{name}-{digest[:12]}.safetensors"
        entry = {"file": file, "bytes": fresh.stat().st_size, "sha256": digest}
        settle(fresh)
        fresh.replace(target / file)
    return entry


def _publish(target: Path, record: dict[str, Any]) -> str:
    """Put the manifest in place, which makes the new state the folder's, and remove what it does not name."""
    raw = _encode(record)
    with _temporary(target) as fresh:
        fresh.write_bytes(raw)
        settle(fresh)
        _sync_folder(target)
        fresh.replace(target / MANIFEST)
    _sync_folder(target)
    _remove_unnamed(target, {entry["file"] for entry in record["files"].values()})
    return str(json.loads(raw)["sha256"])


def read_bundle(
    folder: str | Path, fingerprint: str | None = None, vocabulary: str | None = None
) -> tuple[Manifest, Contents, str]:
    """Read an index, refusing whatever differs from what was written.

    Args:
        folder: where it lies.
        fingerprint: of the encoder that will make the queries; None does not compare.
        vocabulary: digest of the item ids that answers will be named by; None does not compare.

    Returns:
        The manifest, the tensors of every file, and the name of this state for `amend_bundle`.

    Raises:
        RetrievalError: names the file and the remedy.
    """
    path = Path(folder)
    while True:
        with _open_manifest(path / MANIFEST) as stream:
            manifest, files, state = _manifest_of(path / MANIFEST, stream)
            for what, asked, found in (
                ("model (fingerprint", fingerprint, manifest.fingerprint),
                ("catalog (vocabulary", vocabulary, manifest.vocabulary),
            ):
                if asked is not None and asked != found:
                    raise RetrievalError(
                        f"{path / MANIFEST}: made by another {what} {found[:12]}, this one is {asked[:12]}); "
                        f"{_REMEDY}"
                    )
            try:
                contents = {name: _read_file(path / entry["file"], entry) for name, entry in files.items()}
            except FileNotFoundError as error:
                if not is_still(stream, path / MANIFEST):
                    continue
                raise RetrievalError(f"{error.filename}: not found; {_REMEDY}") from None
        return manifest, contents, state


def _read_file(file: Path, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = file.stat().st_size
        if found != entry["bytes"]:
            raise RetrievalError(f"{file}: {found} bytes where the manifest says {entry['bytes']}; {_REMEDY}")
        if sha256_of(file) != entry["sha256"]:
            raise RetrievalError(f"{file}: damaged, its sha256 is not the manifest's; {_REMEDY}")
        return load_file(file)
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise RetrievalError(f"{file}: cannot be read ({error}); {_REMEDY}") from None


def _open_manifest(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise RetrievalError(f"{file}: not found, {file.parent} holds no item index; {_REMEDY}") from None
    except OSError as error:
        raise RetrievalError(f"{file}: cannot be read ({error.strerror or error}); {_REMEDY}") from None


def _manifest_of(file: Path, stream: BinaryIO) -> tuple[Manifest, dict[str, dict[str, Any]], str]:
    """The manifest, the entry of each file, and the name of this state."""
    try:
        raw = stream.read(_MANIFEST_LIMIT_BYTES)
    except OSError as error:
        raise RetrievalError(f"{file}: cannot be read ({error.strerror or error}); {_REMEDY}") from None
    record = _parsed(file, raw)
    damaged = RetrievalError(f"{file}: damaged; {_REMEDY}")
    try:
        manifest = Manifest(**{name.name: record[name.name] for name in fields(Manifest)})
        files = record["files"]
        sound = manifest.metric in METRICS and "vectors" in files
        for entry in files.values():
            # A name that leads out of the folder is nobody's honest manifest.
            sound = sound and _OURS.fullmatch(entry["file"]) is not None
            sound = sound and isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str)
    except (KeyError, TypeError, AttributeError):
        raise damaged from None
    if not sound:
        raise damaged
    return manifest, files, record["sha256"]


def _parsed(file: Path, raw: bytes) -> dict[str, Any]:
    """A manifest's values, its own sha256 among them, once sure that no byte of it was changed."""
    damaged = RetrievalError(f"{file}: damaged; {_REMEDY}")
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        raise damaged from None
    # The bytes must be those that these values are written as, checksum included: no byte is free to change.
    if not isinstance(record, dict):
        raise damaged
    digest = record.pop("sha256", None)
    if digest is None or _encode(record) != raw:
        raise damaged
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise RetrievalError(
            f"{file}: format {record.get('format')!r} version {record.get('version')!r} is not known here; "
            f"{_REMEDY}, or update recsys"
        )
    return record | {"sha256": digest}


def _bytes_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_MANIFEST_LIMIT_BYTES)


def _encode(record: dict[str, Any]) -> bytes:
    """Canonical JSON of a manifest, with the sha256 of its other fields."""
    plain = json.dumps(record, sort_keys=True, indent=2).encode()
    return json.dumps(
        record | {"sha256": hashlib.sha256(plain).hexdigest()}, sort_keys=True, indent=2
    ).encode()


def _replaceable(target: Path) -> bool:
    return target.is_dir() and all(_OURS.fullmatch(entry.name) for entry in target.iterdir())


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=".new-", dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _remove_unnamed(folder: Path, kept: set[str]) -> None:
    """Remove the files of earlier indexes and of saves that were killed."""
    for entry in folder.iterdir():
        if entry.name not in kept and entry.name != MANIFEST:
            entry.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
