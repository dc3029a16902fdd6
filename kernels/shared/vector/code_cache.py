"""Compiled code on disk, right also where several processes compile the same kernel at once.

numba numbers a kernel's files 1, 2, ... in an index. Two processes that compile it for different types at the
same moment both take the next number, and one's code is later loaded for the other's types. Here a file is
named by what it holds: an index names the code that its writer made, whoever else writes. The worst that is
left is an entry lost to another writer, and a kernel compiled once more.
"""

import hashlib
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["CodeCache", "CodeFiles"]


class CodeFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Index and code files of one kernel."""

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

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = CodeFiles(self.cache_path, self._impl.filename_base, stamp)
