"""Whether a store is whole: every event can be read, and is one that could have been stored."""

from dataclasses import dataclass

from recsys.events.checking import fault_of
from recsys.events.store import DamagedStoreError, EventStore, EventStoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a whole store holds."""

    store: str
    events: int
    last_seq: int


def check_store(store: EventStore) -> Facts:
    """Read all of a store, and look at its file's structure where it is a file.

    Raises:
        EventStoreError: it is damaged, or cannot be read.
    """
    last, place, count = store.last_seq(), 0, 0
    inner = getattr(store, "structure_fault", None)
    fault = None if inner is None else inner()
    if fault is not None:
        raise damaged(fault)
    for part in store.read_all():
        for stored in part:
            wrong = fault_of(stored.event)
            if wrong is None and not place < stored.seq:
                wrong = f"stands after event {place}"
            if wrong is not None:
                raise damaged(f"event {stored.seq}: {wrong}")
            place, count = stored.seq, count + 1
    if place > max(last, store.last_seq()):
        raise damaged(f"event {place} has a place that was not given yet")
    return Facts(store=store.identity, events=count, last_seq=last)


def damaged(what: str | DamagedStoreError) -> EventStoreError:
    """The error of a store that is not whole."""
    return EventStoreError(f"{str(what).split('; look with')[0]}; put back a copy from before the damage")
