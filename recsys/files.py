"""Files written whole or not at all: a temporary name beside the target, then a rename."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.errors import RunError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds.

    Raises:
        RunError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise write_error(target, error) from None
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> RunError:
    """The one-line error for a failed write."""
    if error.errno == errno.ENOSPC:
        return RunError(f"{path}: the disk is full; free some space and run again")
    return RunError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, to_json(value) + "\n")


def to_json(value: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Indented JSON; numpy scalars and arrays become plain values.

    Args:
        value: what to write.
        ascii_only: write other characters as escapes.
    """
    return json.dumps(value, indent=2, ensure_ascii=ascii_only, default=_plain)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunError: the file is missing, is not JSON, or does not hold an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error}); the file is damaged") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: a JSON object was expected; the file is damaged")
    return value


def sha256_of(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return value.tolist()
