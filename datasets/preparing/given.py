"""The data that a training is given: prepared already, or a log with the options of its preparation."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.datasets.folders import with_home
from recsys.datasets.prepared.link import link_or_copy
from recsys.datasets.prepared.store import SequenceStore, is_prepared, open_store
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import summary
from recsys.datasets.reading.spool import local_file
from recsys.datasets.sources.finding import find_source
from recsys.datasets.sources.known import KNOWN
from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, eq=False)
class GivenData:
    """What was given; make one with `given_data`.

    Attributes:
        data: an open store, a prepared folder, or a log.
        options: keywords of `prepare` for a log.
        prepared: whether it is prepared already.
        notify: told where a log came from, what was guessed and what was dropped.
    """

    data: Any
    options: Mapping[str, Any]
    prepared: bool
    notify: Callable[[str], None]

    @property
    def name(self) -> Path | None:
        """The path or name that was given; None for what lies in memory."""
        return Path(self.data) if isinstance(self.data, str | Path) else None

    def open(self) -> SequenceStore:
        """The prepared dataset as it lies."""
        return open_store(self.data)

    def put(self, folder: Path) -> SequenceStore:
        """Have the data prepared in a folder: linked or copied, or prepared there.

        Raises:
            DataError: the log is bad or cannot be written.
        """
        if self.prepared:
            return link_or_copy(self.open(), folder)
        store = prepare(self.data, folder, notify=self.notify, **self.options)
        for line in summary(store):
            self.notify(line)
        return store

    def is_source_of(self, store: SequenceStore) -> bool:
        """Whether a dataset was prepared of these data: by the log's digest, or by what comes of it."""
        if self.prepared:
            return self.open().fingerprint == store.fingerprint
        found = find_source(self.data, self.notify).sha256
        if not self.options and found == store.meta.get("source", {}).get("sha256"):
            return True
        with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
            prepared = prepare(self.data, Path(scratch) / "data", notify=self.notify, **self.options)
            return prepared.fingerprint == store.fingerprint


def given_data(
    data: Any, options: Mapping[str, Any] | None = None, notify: Callable[[str], None] | None = None
) -> GivenData:
    """Look at what was given.

    A prepared folder that has the name of a known log wins over that log, and `notify` says so.

    Args:
        data: a store, a prepared folder, or whatever `prepare` takes.
        options: keywords of `prepare`.
        notify: receives lines worth showing.

    Raises:
        ArgumentError: options of a preparation for data that are prepared already.
    """
    options, say = dict(options or {}), notify or (lambda line: None)
    prepared = is_prepared(data)
    if prepared and options:
        raise ArgumentError(
            f"{data}: is prepared already, so {min(options)}= comes too late; prepare the log with it,"
            " or give the log itself"
        )
    if prepared and isinstance(data, str) and data in KNOWN:
        say(f"{data}: the prepared folder of that name is taken, not the known log")
    if not prepared and isinstance(data, str | Path):
        path = with_home(data)
        if path.is_fifo():  # it can be read once, and going on reads twice
            data = local_file(path)
    return GivenData(data, options, prepared, say)
