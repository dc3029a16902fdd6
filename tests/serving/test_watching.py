"""The look at the event store: what it tells, and what it does about a copy that was put back."""

import asyncio

import pytest

from recsys.events.store import Event, EventStoreError
from recsys.serving.watching import EventWatch
from tests.serving.doubles import MemoryEvents, asking, memory_service


def test_a_store_that_cannot_be_read_is_told_until_it_can(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = memory_service()
    events = service.events
    assert isinstance(events, MemoryEvents)
    watch = EventWatch(service, events)

    async def ready() -> tuple[int, str]:
        async with asking(service) as client:
            found = await client.get("/readyz")
            return found.status_code, found.json()["status"]

    def gone() -> int:
        raise EventStoreError("postgresql://db/events: cannot be read (refused); see to the server")

    watch.look()
    assert asyncio.run(ready()) == (200, "ok")
    with monkeypatch.context() as patched:
        patched.setattr(events, "last_seq", gone)
        watch.look()
        watch.look()
        assert asyncio.run(ready()) == (200, "degraded")
    watch.look()
    assert asyncio.run(ready()) == (200, "ok")
    assert caplog.text.count("events cannot be read") == 1


def test_places_that_were_given_before_a_copy_was_put_back_are_not_given_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service, events = memory_service(), MemoryEvents()
    watch = EventWatch(service, events)
    events.append([Event(1, item, 100) for item in range(5)])
    watch.look()
    events.append([Event(1, 9, 100)])
    watch.look()
    events.__init__()  # type: ignore[misc]
    events.append([Event(1, 1, 100), Event(1, 2, 100)])
    watch.look()
    assert "went back from place 6 to 2" in caplog.text
    assert events.append([Event(1, 3, 100)]).last_seq == 7
    watch.look()
    assert caplog.text.count("went back") == 1
