"""Events as a log: what is written, what is left out, and that a model of it reads none of them twice."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys import Recommender, prepare
from recsys.commands.app import main
from recsys.errors import ArgumentError, DataError
from recsys.events.export import export_events
from recsys.events.integrity import check_store
from recsys.events.sqlite import SqliteStore
from recsys.events.store import Event, EventStore, EventStoreError
from recsys.serving.engine.asking import Ask
from tests.serving.engine.runs import engine_of

COLUMNS = ["user_id", "item_id", "timestamp", "type", "request_id"]
T = 1_700_000_000
TINY = (
    *("--set=encoder.d_model=16", "--set=encoder.n_layers=1", "--set=encoder.d_ff=16", "--quiet"),
    *("--set=encoder.max_length=16", "--set=training.batch_events=256", "--set=training.epochs=1"),
)


def rows_of(path: Path) -> list[tuple[object, ...]]:
    frame = pl.read_parquet(path)
    assert frame.columns == COLUMNS
    return frame.rows()


def test_events_are_written_in_order_with_their_kinds(events: EventStore, tmp_path: Path) -> None:
    events.append([Event(1, "a", T + 2, type="view", request_id="r-1"), Event(2, "7", T + 1, id="x")])
    events.append([Event(2, "7", T + 1, id="x"), Event(1, "c", T)])
    last = events.last_seq()
    done = export_events(events, tmp_path / "log.parquet")
    assert (done.events, done.after, done.through, done.old_rows) == (3, 0, last, 0)
    expected = [(1, "a", T + 2, "view", "r-1"), (2, "7", T + 1, None, None), (1, "c", T, None, None)]
    assert rows_of(tmp_path / "log.parquet") == expected
    store = prepare(tmp_path / "log.parquet", tmp_path / "data")
    assert store.meta["events"] == {"store": events.identity, "through": last}


def test_what_came_with_events_becomes_columns_of_the_log(events: EventStore, tmp_path: Path) -> None:
    old, out = tmp_path / "old.csv", tmp_path / "log.parquet"
    old.write_text("user,item,time,action,stars\n1,5,1600000000,view,4\n2,6,1600000001,buy,\n")
    events.append(
        [
            Event(1, 7, T, columns={"action": "buy", "stars": 2.5, "new": True}),
            Event(2, 8, T + 1, columns={}),
            Event(3, 9, T + 2, type="view", columns={"stars": 3, "action": None}),
        ]
    )
    export_events(events, out, log=str(old))
    frame = pl.read_parquet(out)
    assert frame.columns == [*COLUMNS, "action", "stars", "new"]
    assert frame.select("type", "action", "stars", "new").rows() == [
        (None, "view", "4", None),
        (None, "buy", None, None),
        (None, "buy", "2.5", "true"),
        (None, None, None, None),
        ("view", None, "3", None),
    ]
    again = tmp_path / "again.parquet"
    export_events(events, again, log=out)
    order = ["user_id", "timestamp"]
    assert pl.read_parquet(again).equals(frame.sort(order))
    store = prepare(again, tmp_path / "data", event_columns="action,stars")
    assert store.event_columns is not None
    assert store.event_columns.events[1].edges is not None


@pytest.mark.parametrize("kind", [pl.Categorical(), pl.Enum(["tv", "phone"])])
def test_older_columns_of_categories_are_written_as_text(tmp_path: Path, kind: pl.DataType) -> None:
    old, out = tmp_path / "old.parquet", tmp_path / "log.parquet"
    device = pl.Series("device", ["tv", None], dtype=pl.String).cast(kind)
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [5, 6], "timestamp": [T - 2, T - 1]})
    frame.with_columns(device).write_parquet(old)
    events = SqliteStore(tmp_path / "events.db")
    events.append([Event(1, 7, T, columns={"device": "phone"})])
    export_events(events, out, log=old)
    events.close()
    assert pl.read_parquet(out)["device"].to_list() == ["tv", None, "phone"]


def test_columns_of_numbers_stay_columns_of_numbers(
    events: EventStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, out = tmp_path / "old.csv", tmp_path / "log.parquet"
    old.write_text("user,item,time,price,gift\n1,5,1600000000,4.5,0\n2,6,1600000001,,1\n")
    given = (9, "7.25", " 3 ", True, "cheap", "inf", "", None)
    events.append(
        [Event(1, 7, T + place, columns={"price": value, "gift": True}) for place, value in enumerate(given)]
    )
    done = export_events(events, out, log=str(old))
    assert done.no_numbers == {"price": 2}
    frame = pl.read_parquet(out)
    assert frame["price"].to_list() == ["4.5", None, "9", "7.25", " 3 ", "1", None, None, "", None]
    assert frame["gift"].to_list() == ["0", "1", *["1"] * len(given)]
    store = prepare(out, tmp_path / "data", event_columns="price,gift")
    assert store.event_columns is not None
    assert [column.edges is not None for column in store.event_columns.events] == [True, True]
    # Without an older log they are what they are.
    export_events(events, out)
    assert pl.read_parquet(out)["price"].to_list()[4:6] == ["cheap", "inf"]
    if isinstance(events, SqliteStore):
        place = str(events.path)
        events.close()
        words = ["recsys", "events", "export", place, "--log", str(old), "--out", str(out)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = f"column 'price' holds numbers in {old}: left out 2 other values of events"
        assert said in capsys.readouterr().out


def test_a_later_export_goes_on_where_the_older_log_ends(events: EventStore, tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    events.append([Event(user, 5, T + user) for user in (1, 2, 3)])
    export_events(events, out, through=2)
    events.append([Event(1, 6, T + 10, type="buy")])
    done = export_events(events, out, log=out)
    assert (done.after, done.events, done.old_rows, done.erased_rows) == (2, 2, 2, 0)
    assert [row[:2] for row in rows_of(out)] == [(1, 5), (2, 5), (3, 5), (1, 6)]
    # Nothing new: the log again.
    again = export_events(events, out, log=out)
    assert (again.events, len(rows_of(out))) == (0, 4)
    with pytest.raises(ArgumentError, match="pass after=4, or leave it out"):
        export_events(events, out, log=out, after=3)


def test_erased_users_leave_the_older_log_but_come_back(events: EventStore, tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.write_text("user_id,item_id,timestamp\n1,5,1600000000\n2,6,1600000001\n2,7,1600000002\n")
    out = tmp_path / "log.parquet"
    events.append([Event(2, 8, T)])
    assert events.erase(2) == 1
    assert events.erasures() == [2]
    events.append([Event(2, 9, T + 1)])
    done = export_events(events, out, log=str(old))
    assert (done.old_rows, done.erased_rows, done.events) == (1, 2, 1)
    assert [row[:2] for row in rows_of(out)] == [(1, 5), (2, 9)]
    # What came after the erasure is no longer from before it.
    assert events.erasures(done.through) == []
    assert export_events(events, out, log=out).erased_rows == 0
    events.erase(2)
    assert export_events(events, out, log=out).erased_rows == 1


def test_what_cannot_be_one_log_is_refused_and_the_file_stays(events: EventStore, tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    with pytest.raises(DataError, match="would be empty"):
        export_events(events, out)
    events.append([Event(1, 5, T)])
    export_events(events, out)
    before = out.read_bytes()
    events.append([Event(1, "5", T)])
    for kind, match, options in (
        (DataError, "event 2: item '5'.*numbers", {}),
        (DataError, "item '5' is not of the kind of the older log", {"log": out}),
        (ArgumentError, "no place 9 yet; its last is 2", {"through": 9}),
        (ArgumentError, "no place is after 2 and not after 1", {"after": 2, "through": 1}),
        (ArgumentError, "no place of an event", {"after": -1}),
    ):
        with pytest.raises(kind, match=match):
            export_events(events, out, **options)
    with pytest.raises(ArgumentError, match=r"\.parquet"):
        export_events(events, tmp_path / "log.csv")
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.glob("*.parquet")] == ["log.parquet"]
    assert not list(tmp_path.glob(".log*"))


def test_parts_of_one_store_have_its_last_place_and_other_logs_none(
    events: EventStore, tmp_path: Path, opened: Callable[[str], EventStore]
) -> None:
    parts = tmp_path / "parts"
    events.append([Event(user, item, T + item) for user in (1, 2) for item in range(4)])
    export_events(events, parts / "b.parquet", through=5)
    export_events(events, parts / "a.parquet", after=5)
    assert prepare(parts, tmp_path / "one").meta["events"] == {"store": events.identity, "through": 8}
    other = opened(str(tmp_path / "other.db"))
    other.append([Event(3, 1, T)])
    export_events(other, parts / "c.parquet")
    assert "events" not in prepare(parts, tmp_path / "two").meta
    pl.read_parquet(parts / "a.parquet").write_csv(tmp_path / "log.csv")
    assert "events" not in prepare(tmp_path / "log.csv", tmp_path / "three").meta


def test_a_store_is_checked_whole(events: EventStore) -> None:
    assert check_store(events).events == 0
    events.append([Event(1, 5, T), Event("u", "i", T)])
    events.erase(1)
    facts = check_store(events)
    assert (facts.store, facts.events, facts.last_seq) == (events.identity, 1, 3)


def test_a_damaged_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = SqliteStore(path)
    store.append([Event(user, "i" * 200, T, id=f"id-{user}") for user in range(2_000)])
    store.close()
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2 // 4096 * 4096
    whole[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(whole)
    store = SqliteStore(path)
    try:
        with pytest.raises(EventStoreError, match=r"is damaged.*put back a copy"):
            check_store(store)
    finally:
        store.close()


def test_from_service_to_log_to_the_next_model_no_event_is_read_twice(
    tmp_path: Path, log: pl.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recsys(*words: object) -> str:
        monkeypatch.setattr("sys.argv", ["recsys", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert not left.value.code, said.err
        return said.out

    place, out, run = tmp_path / "events.db", tmp_path / "next.parquet", tmp_path / "run"
    log.write_csv(tmp_path / "log.csv")
    user, items = log["user_id"][0], log["item_id"].unique().sort().to_list()
    before = log.filter(pl.col("user_id") == user).height
    new = "a newcomer" if isinstance(user, str) else 10**6
    store = SqliteStore(place)
    try:
        end = int(log["timestamp"].max())  # type: ignore[arg-type]
        store.append([Event(user, items[n], end + n) for n in range(3)])
        store.append([Event(new, items[0], end)])
        told = json.loads(
            recsys("events", "export", place, "--log", tmp_path / "log.csv", "--out", out, "--json")
        )
        assert (told["events"], told["old_rows"], told["through"]) == (4, log.height, 4)
        recsys("train", out, "--out", run, "--min-user-events", 2, *TINY)
        assert Recommender.load(run).store_.meta["events"] == {"store": store.identity, "through": 4}
        store.append([Event(user, items[4], end + 9)])
        told = recsys("events", "export", place, "--log", out, "--out", tmp_path / "more.parquet")
        assert told == (
            f"{tmp_path / 'more.parquet'}: {log.height + 4:,} rows of {out}, then 1 event after place 4"
            " up to 5\n"
        )
        engine = engine_of(run, store)
        try:
            found = asyncio.run(engine.recommend(Ask(user=user, k=3)))
            assert found.history.events == before + 4
            # The log holds nothing of a user whom the preparation left out: the store is read from 1 on.
            unknown = asyncio.run(engine.recommend(Ask(user=new, k=3)))
            assert unknown.history.events == 1
        finally:
            engine.end()
    finally:
        store.close()
    assert "sound: 5 events" in recsys("events", "check", place)
    assert json.loads(recsys("events", "erase", place, "--user", user, "--json"))["erased"] == 4
    assert "sound: 1 event," in recsys("events", "check", place)
