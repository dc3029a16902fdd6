"""Events that cannot be stored: refused alone, told by /readyz, counted, until they can be again."""

import asyncio

from tests.serving.doubles import MemoryEvents, asking, memory_service


def test_a_full_disk_refuses_events_alone_until_there_is_room() -> None:
    service = memory_service()
    store = service.events
    assert isinstance(store, MemoryEvents)
    event = {"events": [{"user": 1, "item": 5, "id": "a"}, {"user": 1, "item": True}]}

    async def run() -> None:
        async with asking(service) as client:
            assert (await client.post("/v1/events", json=event)).status_code == 200
            assert (await client.get("/readyz")).json() == {"status": "ok"}
            store.full = True
            refused = await client.post("/v1/events", json=event)
            assert refused.status_code == 507
            assert refused.json()["type"] == "urn:recsys:problem:store-full"
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert (await client.post("/v1/recommend", json={"user": 1})).status_code == 200
            store.full = False
            assert (await client.post("/v1/events", json=event)).json()["duplicates"] == 1
            assert (await client.get("/readyz")).json() == {"status": "ok"}

    asyncio.run(run())
    counted = service.metrics.registry.get_sample_value
    assert counted("recsys_events_total", {"result": "accepted"}) == 1
    assert counted("recsys_events_total", {"result": "duplicate"}) == 1
    assert counted("recsys_events_total", {"result": "rejected"}) == 2
    assert counted("recsys_event_commit_seconds_count") == 2
    assert counted("recsys_rejected_total", {"reason": "store-full"}) == 1
