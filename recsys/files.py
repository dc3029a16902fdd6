"""Files written whole or not at all: a temporary name beside the target, then a rename. Locks and paths."""

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from recsys.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


def user_path(path: str | Path) -> Path:
    """A path as its user means it: ``~`` is the home folder, and a relative one stays where it is now.

    Raises:
        RunError: no path at all, or the home folder of nobody.
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise RunError(f"{path!r} is not a path; name a folder or file")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise RunError(f"{path}: {error}; write the path in full") from None


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
        settle(temporary)
        temporary.replace(target)
    except OSError as error:
        raise write_error(target, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path) -> None:
    """Bring a written file to the disk, with the mode that the umask gives every other file.

    A library may have written through a private file of its own, so this comes after it.
    """
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: as any write, with the number that the library drops.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(errno.EIO, str(error)) from None
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


@contextmanager
def lock_on(path: Path, *, wait: bool) -> Iterator[None]:
    """Be the only process in the block; the lock goes with the process that holds it.

    Args:
        path: a folder that is there, or a file that is made for this and removed after.
        wait: for another holder to leave.

    Raises:
        BlockingIOError: somebody else holds it and ``wait`` is false.
        OSError: the file cannot be made.
    """
    folder = path.is_dir()
    while True:
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The holder before may have removed the file that this one waited on.
            if folder or (path.exists() and path.stat().st_ino == os.fstat(handle).st_ino):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    try:
        yield
    finally:
        try:
            if not folder:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def is_still(stream: BinaryIO, path: Path) -> bool:
    """Whether a path leads to this open file still: nobody replaced it, not even by one and then by its like.

    Equal contents would not tell, as what lies beside the file may have been gone in between. As long as a
    file is open, no other one is given its number.
    """
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_error(path: Path, error: OSError) -> RunError:
    """The one-line error for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
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
