"""Compiled code on disk, right also where several processes compile the same kernel at once.

numba numbers a kernel's files 1, 2, ... in an index. Two processes that compile it for different types at the
same moment both take the next number, and one's code is later loaded for the other's types. Here a file is
named by what it holds: an index names the code that its writer made, whoever else writes. The worst that is
left is an entry lost to another writer, and a kernel compiled once more.

The folder is the first of these that can be written: `$NUMBA_CACHE_DIR`, the package's own `__pycache__`,
`$RECSYS_CACHE/kernels`, the user's cache folder, and one of the user's own under the temporary folder.
What the package's folder holds is read even where it cannot be written, as in an image that
was warmed up by its maker.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from numba.core import caching
from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["CodeCache", "CodeFiles"]

# numba 0.62 took the underscores away.
_InTree: Any = getattr(caching, "InTreeCacheLocator", None) or caching._InTreeCacheLocator
_Chosen: Any = getattr(caching, "UserProvidedCacheLocator", None) or caching._UserProvidedCacheLocator
_UserWide: Any = getattr(caching, "UserWideCacheLocator", None) or caching._UserWideCacheLocator


class _RecsysCache(_UserWide):  # type: ignore[misc]
    """`$RECSYS_CACHE/kernels`."""

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(Path(os.environ["RECSYS_CACHE"], "kernels", self._folder(file)).expanduser())

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        return super().from_function(function, file) if os.environ.get("RECSYS_CACHE") else None

    @staticmethod
    def _folder(file: str) -> str:
        return str(_UserWide.get_suitable_cache_subpath(file))


class _TemporaryCache(_RecsysCache):
    """A folder of this user's own under the temporary one."""

    def __init__(self, function: Any, file: str) -> None:
        _UserWide.__init__(self, function, file)
        self._own = Path(tempfile.gettempdir(), f"recsys-kernels-{os.getuid()}")
        self._cache_path = str(self._own / self._folder(file))

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        return _UserWide.from_function.__func__(cls, function, file) if hasattr(os, "getuid") else None

    def ensure_cache_path(self) -> None:
        """Make the folder; code of others, who may write there as well, is never loaded."""
        self._own.mkdir(mode=0o700, exist_ok=True)
        found = self._own.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{self._own}: is not a folder of this user alone")
        super().ensure_cache_path()


class _Place(FunctionCache._impl_class):  # type: ignore[misc]
    """Where the code of one kernel lies."""

    _locator_classes = (_Chosen, _InTree, _RecsysCache, _UserWide, _TemporaryCache)


class CodeFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Index and code files of one kernel."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except (AttributeError, ImportError):
            # Of an earlier source, some class of whose arguments has another name by now.
            return {}

    def save(self, key: Any, data: Any) -> None:
        """Write the code, then name it in the index."""
        digest = hashlib.sha256(self._dump(data)).digest()
        name = self._data_name(int.from_bytes(digest[:8], "big"))
        self._save_data(name, data)
        overloads = self._load_index()
        overloads[key] = name
        self._save_index(overloads)


class CodeCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of one kernel with files of the above kind.

    Raises:
        RuntimeError: no folder that may hold it can be written.
    """

    _impl_class = _Place

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        locator = self._impl.locator
        name, stamp = self._impl.filename_base, locator.get_source_stamp()
        self._cache_file = CodeFiles(self.cache_path, name, stamp)
        packaged = Path(function.__code__.co_filename).parent / "__pycache__"
        # Code is trusted that lies where the source does.
        self._packaged = None if str(packaged) == self.cache_path else CodeFiles(str(packaged), name, stamp)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super()._load_overload(sig, target_context)
        if found is None and self._packaged is not None and self._enabled:
            data = self._packaged.load(self._index_key(sig, target_context.codegen()))
            found = None if data is None else self._impl.rebuild(target_context, data)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled form; a full disk costs another compilation, not this answer."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
