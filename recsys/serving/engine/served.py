"""A model in service: what never changes of it while it answers."""

import hashlib
import itertools
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.answering.each import Answerer
from recsys.answering.names import Names
from recsys.encoders.registry import encoder_name
from recsys.errors import DataError
from recsys.events.store import RawId
from recsys.recommender import Recommender
from recsys.retrieval.bundle import MANIFEST
from recsys.run_folder import RunFolder, fingerprint
from recsys.serving.engine.asking import ModelInfo

_NUMBERS = itertools.count()
_SHOWN = 12
"""Hex digits of a version: two of a million models are the same with a chance of one in 500."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model under a name, with all that its answers are made of.

    Attributes:
        name: by which it is asked.
        path: its run folder.
        model: loaded, its index built.
        answerer: of it.
        version: see :func:`version_of`.
        watermark: the event store that its log was exported from and the last place that the log holds.
        loaded: unix seconds.
        details: its report, and `time_zone` of its log, for people.
        number: of this object in this process: what is kept of it is of no other one.
    """

    name: str
    path: Path
    model: Recommender
    answerer: Answerer
    version: str
    watermark: tuple[str, int] | None
    loaded: float
    details: dict[str, Any]
    number: int = field(default_factory=lambda: next(_NUMBERS), init=False)

    @property
    def names(self) -> Names:
        """Of its users and items."""
        return self.model._names

    def watermark_for(self, user: RawId) -> tuple[str, int] | None:
        """Its watermark, None for a user of whom the log holds nothing: preparing may leave users out."""
        if self.watermark is None or self.names.users.encode([user])[0] < 0:
            return None
        return self.watermark

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of its categories; none where the catalog has none."""
        try:
            return tuple(self.names.categories[0])
        except DataError:
            return ()

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Names of the columns of events that it reads."""
        return self.model.encoder_.told_of_events

    @property
    def context_columns(self) -> tuple[str, ...]:
        """Names of the columns of requests and users that it reads."""
        return self.model.encoder_.told_of_requests

    @property
    def first_item(self) -> npt.NDArray[np.int64]:
        """(1,) index of an item that may be answered."""
        live = self.model.decoder_.live
        return np.zeros(1, dtype=np.int64) if live is None else live.snapshot().ids[:1]

    @cached_property
    def item_vectors(self) -> npt.NDArray[np.float32]:
        """(V + m, d) float32 embeddings of the log's items and of those added with features, on the host."""
        encoder = self.model.encoder_
        own, later = encoder.item_vectors(), encoder.later_item_vectors()
        return np.concatenate([vectors.float().cpu().numpy() for vectors in (own, later)])

    @cached_property
    def usual_events(self) -> int:
        """Events that the log holds of a user in the mean."""
        store = self.model.store_
        return -(-int(store.offsets[-1]) // max(store.n_users, 1))

    def info(self, weight: float, shadow: float) -> ModelInfo:
        """What may be known of it."""
        encoder, names = self.model.encoder_, self.names
        return ModelInfo(
            name=self.name,
            version=self.version,
            path=str(self.path),
            encoder=encoder_name(encoder),
            n_items=self.model.decoder_.n_answerable,
            n_users=self.model.store_.n_users,
            width=encoder.config.d_model,
            ids_are_int=names.items.is_int,
            user_ids_are_int=names.users.is_int,
            needs_times=encoder.needs_timestamps or encoder.needs_local_times,
            reads_request_time=encoder.reads_request_time,
            weight=weight,
            shadow=shadow,
            loaded=self.loaded,
            categories=self.categories,
            watermark=self.watermark,
            event_columns=self.event_columns,
            context_columns=self.context_columns,
            details=self.details,
        )


def version_of(model: Recommender, path: Path) -> str:
    """Twelve hex digits that differ where the weights, the log or the saved index do.

    Args:
        model: loaded from it.
        path: a run folder.
    """
    run = RunFolder(path)
    digest = hashlib.sha256(fingerprint(model.encoder_).encode())
    for file in (run.data / "meta.json", run.index / MANIFEST):
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return digest.hexdigest()[:_SHOWN]


def same_run(one: Served, other: Served) -> bool:
    """Whether two are the same weights of the same folder, whatever their catalogs."""
    return one.path == other.path and fingerprint(one.model.encoder_) == fingerprint(other.model.encoder_)


def with_saved_index(served: Served) -> Served:
    """The same, named by the index that lies in its folder now."""
    return replace(served, version=version_of(served.model, served.path))


def watermark_of(meta: dict[str, Any]) -> tuple[str, int] | None:
    """The event store that a log was exported from, and the last place in it that the log holds."""
    found = meta.get("events")
    if not isinstance(found, dict):
        return None
    return str(found["store"]), int(found["through"])


def details_of(path: Path) -> dict[str, Any]:
    """A run's report, if it has one."""
    report = RunFolder(path).report
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
