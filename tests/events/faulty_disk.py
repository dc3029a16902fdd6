"""A layer below SQLite whose disk may be full, broken or read-only, as a test says."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

_numbers = itertools.count()


class FaultyDisk(apsw.VFS):
    """Reads and writes as usual until `fault` is set.

    Attributes:
        name: for SQLite.
        fault: what writing meets: "full" (half of what is written arrives), "broken" (it cannot be written),
            "unsynced" (it is written, and cannot be brought to the disk), "read-only" (files opened from now
            on, too), None.
        met: how often.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.fault: str | None = None
        self.met = 0
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "FaultyFile":
        """SQLite's call."""
        if self.fault == "read-only" and flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            flags[0] = flags[0] & ~(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            flags[0] |= apsw.SQLITE_OPEN_READONLY
        return FaultyFile(self, name, flags)

    @contextmanager
    def having(self, fault: str) -> Iterator[None]:
        """Have a fault for a block, and see that it was met."""
        before, self.fault = self.met, fault
        try:
            yield
        finally:
            self.fault = None
        assert self.met > before, "nothing met the fault"


class FaultyFile(apsw.VFSFile):
    """A file on such a disk."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        """SQLite's call."""
        fault = self._disk.fault
        if fault in ("full", "broken", "read-only"):
            self._disk.met += 1
            if fault == "full":
                super().xWrite(bytes(data)[: len(data) // 2], offset)
                raise apsw.FullError("no space left on the device")
            raise apsw.IOError("disk I/O error")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        """SQLite's call."""
        if self._disk.fault == "unsynced":
            self._disk.met += 1
            raise apsw.IOError("disk I/O error")
        super().xSync(flags)
