"""What the routes ask of the engine, and what it answers: raw ids, no HTTP, no tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recsys.errors import RecsysError
from recsys.events.event_columns import ColumnValue
from recsys.events.store import RawId


class BusyError(RecsysError):
    """The queue is full, or the service is starting or ending: ask again later."""


class DeadlineError(RecsysError):
    """The answer was not there in time."""


class CatalogError(RecsysError):
    """Items cannot be changed now: the run folder cannot be written, or holds another model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewItem:
    """What an item is that may be answered from now on.

    Attributes:
        vector: in the space of the index's vectors; or None.
        like: raw ids of items whose mean vector it gets; or None.
        category: under which it is found; with neither of the two it gets the mean vector of its items.
        title: what answers call it; None leaves that as it is.
        features: values of the columns that the log of a model of items with features was prepared with, by
            name, a vector under its column's or as "vector": the item gets the vector that the model makes of
            them, and histories may hold it. Instead of vector and like; or None.
    """

    vector: Sequence[float] | None = None
    like: Sequence[RawId] | None = None
    category: str | None = None
    title: str | None = None
    features: Mapping[str, str | Sequence[str] | Sequence[float]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request for items.

    Attributes:
        user: raw id; None for a history of nobody.
        history: raw item ids, oldest first; after what the log and the store hold of `user`, if both are
            given. Unknown ones are left out and reported.
        times: unix seconds of every event of `history`, or None.
        columns: by an event column's name what came with each of them, or None.
        context: by the name of a request or user column what is known of the request, or None. Columns that
            the model does not read are passed over.
        at: when the answer is wanted, as `Recommender.recommend` takes it.
        time_zone: of the request.
        k: answers.
        exclude_seen: leave out what the history holds.
        allow: only these raw ids may be answered; None is all.
        allow_field: what the request calls them, for what is refused.
        deny: these may not.
        category: only items of one of these.
        interests: query vectors.
        model: which of the models answers; None is chosen by the user.
        request_id: tells requests of nobody apart, where several models share them; None is the default's.
    """

    user: RawId | None = None
    history: Sequence[RawId] | None = None
    times: Sequence[int] | None = None
    columns: Mapping[str, Sequence[ColumnValue]] | None = None
    context: Mapping[str, ColumnValue] | None = None
    at: Any = None
    time_zone: str | None = None
    k: int = 10
    exclude_seen: bool = True
    allow: Sequence[RawId] | None = None
    allow_field: str = "allow"
    deny: Sequence[RawId] | None = None
    category: Sequence[str] | None = None
    interests: int = 1
    model: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """An answered item."""

    id: RawId
    score: float
    rank: int
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ItemInfo:
    """What the catalog says of an item.

    Attributes:
        id: raw id.
        title: None for one without.
        categories: that it is found under.
        events: of the training log; 0 for an item that came since.
        answerable: whether it may be answered now; one that was removed may not.
    """

    id: RawId
    title: str | None
    categories: tuple[str, ...]
    events: int
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class HistoryRead:
    """What was read of the user: all events, those encoded, and raw ids that the model does not know."""

    events: int
    encoded: int
    unknown: tuple[RawId, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """Answer to an `Ask`.

    Attributes:
        model: name of the model that answered.
        version: of it: what its weights and index hash to.
        items: best first; k of them whenever k candidates exist.
        history: what was read.
        last_seq: highest place in the event store of what was read of the user; 0 without one.
        fallback: "popular" where nothing was known of the request, else None.
        batch: requests that were computed with it; 0 where the answer was kept from before.
        queue_ms: milliseconds that it waited.
        cached: whether the user's vector, or the answer, was kept from before.
    """

    model: str
    version: str
    items: tuple[Item, ...]
    history: HistoryRead
    last_seq: int = 0
    fallback: str | None = None
    batch: int = 1
    queue_ms: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in service.

    Attributes:
        name: by which it is asked.
        version: see `Answered`.
        path: of its run folder.
        encoder: "sasrec", ...
        n_items: items that may be answered.
        n_users: users of its log.
        width: of its states.
        ids_are_int: whether item ids are whole numbers.
        user_ids_are_int: whether user ids are.
        needs_times: whether a history needs times.
        reads_request_time: whether `at` has a part in its answers.
        weight: share of the users that it answers, out of the sum of all weights.
        shadow: share of requests that it is asked beside another one, in percent; 0 is none.
        loaded: unix seconds.
        categories: what items may be asked for by category.
        watermark: the event store that its log was exported from, and the last place that the log holds.
        event_columns: names of the columns of events that it reads.
        context_columns: likewise of requests and users.
        details: for the page: the run's report, and `time_zone` of its log.
    """

    name: str
    version: str
    path: str
    encoder: str
    n_items: int
    n_users: int
    width: int
    ids_are_int: bool
    user_ids_are_int: bool
    needs_times: bool
    reads_request_time: bool
    weight: float = 1.0
    shadow: float = 0.0
    loaded: float = 0.0
    categories: tuple[str, ...] = ()
    watermark: tuple[str, int] | None = None
    event_columns: tuple[str, ...] = ()
    context_columns: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """What routes, protocol and page are written against; `recsys.serving.engine.engine` keeps it.

    Methods raise `RecsysError`s: UnknownIdError for ids that a path or `model` names, ArgumentError for what
    cannot be answered, BusyError and DeadlineError.
    """

    async def recommend(self, ask: Ask) -> Answered:
        """Answer one request."""
        ...

    async def recommend_many(self, asks: Sequence[Ask]) -> list[Answered | RecsysError]:
        """Answer several; each answer, or why there is none, in its place."""
        ...

    async def similar(self, item: RawId, k: int, model: str | None = None) -> tuple[Item, ...]:
        """Items near to one, best first."""
        ...

    async def encode(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[int]] | None = None,
        model: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """(r, d) float32 states of histories; unknown items are refused."""
        ...

    async def clock(self, user: RawId, model: str | None = None) -> dict[str, Any]:
        """What a user prefers at each local hour, as `recsys clock --json` prints it."""
        ...

    async def history(self, user: RawId, model: str | None = None) -> list[tuple[RawId, int | None]]:
        """What the training log holds of a user, oldest first: raw item id and unix seconds, if any."""
        ...

    async def title(self, items: Sequence[RawId], model: str | None = None) -> list[str | None]:
        """Titles of items, where the catalog has them."""
        ...

    async def search_users(self, text: str, limit: int, model: str | None = None) -> list[RawId]:
        """Users of the log whose id begins with a text."""
        ...

    async def search_items(self, text: str, limit: int, model: str | None = None) -> list[Item]:
        """Items whose id begins with a text, or whose title holds it; scores are training events."""
        ...

    async def load_model(
        self, name: str, path: str | None, weight: float | None = None, shadow: float | None = None
    ) -> ModelInfo:
        """Put a run under the folder of `models_dir` in service; returns when it answers here.

        Without a path it is the run that the name has, loaded again, or for a new name the folder called so.
        `weight` and `shadow` are those of `ModelInfo`; None keeps them, and is 0 for a new name.
        """
        ...

    async def unload_model(self, name: str) -> None:
        """Let a model go that is not the default."""
        ...

    async def roll_back(self, name: str) -> ModelInfo:
        """Put back what answered under a name before; what answers now can be put back in its turn."""
        ...

    async def item(self, item: RawId, model: str | None = None) -> ItemInfo:
        """What the catalog says of an item."""
        ...

    async def put_item(self, item: RawId, new: NewItem, model: str | None = None) -> ModelInfo:
        """Let an item be answered, or give one another vector; returns when it is saved and answered here."""
        ...

    async def remove_item(self, item: RawId, model: str | None = None) -> ModelInfo:
        """Let an item be answered no more; histories may still hold it."""
        ...

    async def nearest(
        self, items: Sequence[RawId], among: Sequence[RawId], model: str | None = None
    ) -> list[tuple[RawId, float] | None]:
        """For each item which of others is nearest, and the cosine between their embeddings.

        None where the item has no embedding, or none of the others has.
        """
        ...

    def models(self) -> tuple[ModelInfo, ...]:
        """The models in service, the default first; empty while the first is loading."""
        ...

    def ready(self, coming: int = 0) -> str | None:
        """None if requests can be taken, else why not.

        Args:
            coming: requests that will be asked in a moment, beside those that wait.
        """
        ...

    def heartbeat_age(self) -> float:
        """Seconds since the compute thread was last known to be alive."""
        ...
