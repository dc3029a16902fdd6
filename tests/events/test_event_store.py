"""What every event store promises, by SQLite and by a real Postgres server."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from recsys.errors import ArgumentError
from recsys.events.by_place import open_events
from recsys.events.sqlite import SqliteStore
from recsys.events.store import Appended, Event, EventStore, EventStoreError, RawId

Opened = Callable[[str], EventStore]


def items(store: EventStore, user: RawId, after: int = 0) -> list[RawId]:
    return [each.event.item for each in store.tail(user, after)]


def test_an_event_comes_back_as_it_was_handed_in(events: EventStore) -> None:
    full = Event("Zoë's", -(2**63), 2**62, "sender-1", "view", "request-1")
    bare = Event(7, "item", 5)
    before = int(time.time())
    assert events.append([full, bare]) == Appended(2, 0, events.last_seq())
    [first] = events.tail("Zoë's")
    [second] = events.tail(7)
    assert (first.event, second.event) == (full, bare)
    assert before <= first.received <= time.time()
    assert 0 < first.seq < second.seq == events.last_seq()


def test_nothing_is_stored_of_nothing(events: EventStore) -> None:
    assert (events.append([]), events.last_seq(), events.tail(1)) == (Appended(0, 0, 0), 0, [])
    assert (events.page(1, 10), events.recent(10), list(events.read_all())) == ([], [], [])


def test_a_number_and_its_text_are_two_users(events: EventStore) -> None:
    events.append([Event(1, 1, 1), Event("1", "1", 2), Event("i1", 3, 3)])
    assert (items(events, 1), items(events, "1"), items(events, "i1")) == ([1], ["1"], [3])


def test_a_tail_is_in_order_of_time_then_place(events: EventStore) -> None:
    """A clock that steps backwards, or a sender that is late, changes the order, and loses nothing."""
    events.append([Event(1, 10, 500), Event(2, 99, 1)])
    middle = events.last_seq()
    events.append([Event(1, 11, 400), Event(1, 12, 500)])
    assert items(events, 1) == [11, 10, 12]
    assert items(events, 1, after=middle) == [11, 12]


def test_duplicates_by_id_are_counted_and_the_first_is_kept(events: EventStore) -> None:
    first = events.append([Event(1, 10, 1, id="a"), Event(1, 11, 1), Event(1, 12, 1, id="a")])
    assert first[:2] == (2, 1)
    again = events.append([Event(2, 13, 9, id="a"), Event(1, 11, 1), Event(1, 14, 2, id="b")])
    assert again[:2] == (2, 1)
    assert (items(events, 1), items(events, 2)) == ([10, 11, 11, 14], [])


def test_pages_go_from_the_newest_place_backwards(events: EventStore) -> None:
    for item in range(7):
        events.append([Event(1, item, 100 - item), Event(2, item, 0)])
    first = events.page(1, 3)
    assert [each.event.item for each in first] == [6, 5, 4]
    second = events.page(1, 10, before=first[-1].seq)
    assert [each.event.item for each in second] == [3, 2, 1, 0]
    recent = events.recent(3)
    assert [(each.event.user, each.event.item) for each in recent] == [(2, 6), (1, 6), (2, 5)]
    assert [each.event.item for each in events.recent(2, before=recent[-1].seq)] == [5, 4]


def test_everything_is_read_in_parts_between_two_places(events: EventStore) -> None:
    for start in range(0, 9000, 1000):
        events.append([Event(number % 5, number, number) for number in range(start, start + 1000)])
    parts = list(events.read_all())
    assert [each.event.item for part in parts for each in part] == list(range(9000))
    assert max(map(len, parts)) < 9000
    places = [each.seq for part in parts for each in part]
    some = [each.event.item for part in events.read_all(places[9], places[19]) for each in part]
    assert some == list(range(10, 20))


def test_what_is_written_while_everything_is_read_is_left_for_the_next_time(events: EventStore) -> None:
    events.append([Event(1, number, 0) for number in range(5000)])
    parts = events.read_all()
    read = [each.event.item for each in next(parts)]
    events.append([Event(1, 5000, 0)])
    read += [each.event.item for part in parts for each in part]
    assert read == list(range(5000))


def test_an_erased_user_is_gone_and_places_are_not_given_again(events: EventStore) -> None:
    events.append([Event(1, 10, 1, id="a"), Event(2, 20, 1), Event(1, 11, 2)])
    before = events.last_seq()
    assert not events.erased(1)
    assert events.erase(1) == 2
    assert (events.tail(1), items(events, 2), events.erased(1), events.erased("1")) == ([], [20], True, False)
    assert events.last_seq() > before
    later = events.append([Event(1, 12, 3)]).last_seq
    assert later > before + 1
    assert (items(events, 1), events.erased(1)) == ([12], True)
    assert events.erase(777) == 0
    assert events.erased(777)


def test_a_log_from_after_an_erasure_is_read_again(events: EventStore) -> None:
    events.append([Event(1, 10, 1)])
    before = events.last_seq()
    events.erase(1)
    assert events.erased(1, before)
    assert not events.erased(1, events.last_seq())
    mark = events.last_seq()
    events.erase(1)
    assert events.erased(1, mark)


def test_places_that_were_forgotten_are_not_given_again(events: EventStore) -> None:
    """A copy from before is put back, and a log holds places that were given since."""
    events.append([Event(1, 10, 1), Event(1, 11, 2)])
    assert not events.reserve(events.last_seq())
    assert events.reserve(90)
    assert events.last_seq() == 90
    events.append([Event(1, 12, 3)])
    assert items(events, 1, after=90) == [12]
    assert not events.reserve(50)
    assert events.last_seq() > 90


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event(True, 1, 1), "event 1: user: True is neither a whole number nor text"),
        (Event(1, 2**63, 1), "event 1: item: 9223372036854775808 does not fit 64 bits"),
        (Event(1, "", 1), "event 1: item: is empty"),
        (Event("a\0b", 1, 1), "event 1: user: holds a NUL character"),
        (Event("\ud800", 1, 1), r"event 1: user: is not text that UTF-8 can write"),
        (Event(1, "é" * 129, 1), "event 1: item: is longer than 256 bytes"),
        (Event(1, 2, 1, columns={"a": "é" * 129}), "event 1: columns: 'a' is longer than 256 bytes"),
        (
            Event(1, 2, 1, columns={"type": "buy"}),
            "event 1: columns: 'type' is a name that logs have already",
        ),
        (Event(1, 2, 1, columns={" ": 1}), "event 1: columns: ' ' is empty"),
        (Event(1, 2, 1, columns={"a": float("nan")}), "event 1: columns: 'a' holds nan"),
        (Event(1, 2, 1, columns={"a": 2**63}), "event 1: columns: 'a' does not fit 64 bits"),
        (Event(1, 2, 1, columns={"a": [1]}), "event 1: columns: 'a' is neither text"),  # type: ignore[dict-item]
        (Event(1, 2, 1, columns=dict.fromkeys(map(str, range(33)))), "event 1: columns: has 33 columns"),
        (Event(1, 1, 1.5), "event 1: time: 1.5 is not unix seconds"),  # type: ignore[arg-type]
        (Event(1, 1, 1, id=""), "event 1: id: is empty"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_all_that_came_with_it(
    events: EventStore, event: Event, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        events.append([Event(1, 1, 1), event])
    assert events.last_seq() == 0
    assert (events.tail(event.user), events.page(event.user, 5)) == ([], [])


def test_a_store_opened_again_is_the_same(place: str, opened: Opened) -> None:
    first = opened(place)
    first.append([Event(1, 10, 1, id="a")])
    first.erase(2)
    first.close()
    second = opened(place)
    assert (second.identity, items(second, 1), second.erased(2)) == (first.identity, [10], True)
    assert second.append([Event(1, 10, 1, id="a")])[:2] == (0, 1)
    assert len(first.identity) == 32


def test_a_closed_store_says_so(events: EventStore) -> None:
    events.close()
    events.close()
    for call in (lambda: events.append([Event(1, 1, 1)]), lambda: events.tail(1), lambda: events.erase(1)):
        with pytest.raises(EventStoreError, match="is closed"):
            call()


def test_threads_share_commits_and_nothing_is_lost_or_doubled(events: EventStore) -> None:
    """What a thread was told is there is there for every other thread, at once."""
    missing = []

    def send(user: int) -> None:
        for number in range(25):
            name = f"{user}-{number}"
            last = events.append([Event(user, number, number, id=name), Event(user, number, 0, id=name)])
            seen = events.tail(user)
            if len(seen) != number + 1 or seen[-1].seq > last.last_seq:
                missing.append(name)

    threads = [threading.Thread(target=send, args=(user,)) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missing
    everything = [each for part in events.read_all() for each in part]
    assert len(everything) == 200
    assert len({each.seq for each in everything}) == 200


WRITER = """
import sys
from recsys.events.by_place import open_events
from recsys.events.store import Event
store = open_events(sys.argv[1])
for number in range(60):
    store.append([Event(sys.argv[2], number, 0, id=f"{sys.argv[2]}-{number}")])
print(store.identity)
store.close()
"""


def test_processes_write_one_store_and_a_reader_misses_nothing_below_what_it_saw(place: str) -> None:
    """Who has read up to a place finds nothing new below it: a watermark would lose that."""
    command = [sys.executable, "-c", WRITER, place]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b", "c")
    ]
    store = open_events(place)
    read: list[int] = []
    try:
        while any(writer.poll() is None for writer in writers):
            read += [each.seq for part in store.read_all(read[-1] if read else 0) for each in part]
        said = {writer.communicate()[0].strip() for writer in writers}
        read += [each.seq for part in store.read_all(read[-1] if read else 0) for each in part]
        assert [writer.returncode for writer in writers] == [0, 0, 0]
        assert said == {store.identity}
        assert read == [each.seq for part in store.read_all() for each in part]
        assert len(read) == 180
        assert [items(store, name) for name in ("a", "b", "c")] == [list(range(60))] * 3
    finally:
        store.close()


def test_the_newest_place_of_a_user_changes_with_every_event_and_erasure(tmp_path: Path) -> None:
    events = SqliteStore(tmp_path / "events.db")
    try:
        assert events.newest(1) == (0, False)
        events.append([Event(1, 5, 30), Event("1", 6, 20), Event(1, 7, 10)])
        assert (events.newest(1), events.newest("1")) == ((3, False), (2, False))
        assert (events.newest(1, 3), events.newest(1, 2)) == ((0, False), (3, False))
        events.append([Event(2, 5, 30)])
        assert events.newest(1) == (3, False)
        events.erase(1)
        assert (events.newest(1), events.newest(1, 5)) == ((0, True), (0, False))
        events.append([Event(1, 8, 40)])
        assert events.newest(1) == (6, True)
        assert events.newest("lone \ud800") == (0, False)
    finally:
        events.close()
    with pytest.raises(EventStoreError, match="closed"):
        events.newest(1)


def test_the_newest_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Locked:
        def execute(self, *_: object) -> None:
            raise apsw.BusyError("database is locked")

    events = SqliteStore(tmp_path / "events.db")
    try:
        monkeypatch.setattr(events._glances, "_idle", [Locked()])
        monkeypatch.setattr(events._glances, "_close_one", lambda _: None)
        assert events.newest(1) is None
        assert events.newest(1) == (0, False)
    finally:
        events.close()


def test_events_may_be_handed_over_and_not_taken_back(events: EventStore) -> None:
    futures = [events.submit([Event(1, place, 30, id=f"{place % 3}")]) for place in range(6)]
    assert not any(future.cancel() for future in futures)
    assert sum(future.result(20).accepted for future in futures) == 3
    assert [future.result().duplicates for future in futures[3:]] == [1, 1, 1]
    assert items(events, 1) == [0, 1, 2]
    assert events.submit([]).result() == Appended(0, 0, events.last_seq())
    with pytest.raises(ArgumentError, match="user"):
        events.submit([Event("lone \ud800", 1, 30)])
