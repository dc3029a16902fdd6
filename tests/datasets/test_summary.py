"""What was dropped, merged or left without training is said, by the numbers of meta.json."""

from pathlib import Path

import polars as pl

from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import parts_line, summary

T = 1_600_000_000
DAY = 86_400


def test_nothing_is_said_of_a_log_without_losses(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1] * 4, "item_id": [1, 2, 3, 4], "timestamp": range(T, T + 4)})
    store = prepare(frame, tmp_path / "out")
    assert summary(store) == []
    assert parts_line(store) == "split: leave-one-out (2 train, 1 valid, 1 test events; 1 users tested)"


def test_every_loss_is_counted(tmp_path: Path) -> None:
    rows = [(user, item, T + item) for user in (1, 2, 3, 4) for item in (1, 2)]
    rows += [(1, 1, T + 1)]  # a repeat
    rows += [(9, 1, T + 5)]  # one event only
    rows += [(1, 2, T + DAY), (2, 7, T + DAY), (3, 7, T + DAY)]  # validation; item 7 never trains
    rows += [(5, 1, T + 2 * DAY), (5, 2, T + 2 * DAY), (6, 7, T + 2 * DAY), (6, 7, T + 2 * DAY + 1)]
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n1,One\n", encoding="utf-8")
    store = prepare(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"),
        tmp_path / "out",
        split="temporal",
        valid_time=T + DAY,
        test_time=T + 2 * DAY,
        min_user_events=2,
        items=items,
    )
    assert summary(store) == [
        "dropped for too few events: 1 events (1 users, 0 items)",
        "dropped as cold: 4 events of 1 items without a training event (1 users with them)",
        "kept: 1 events that repeat user, item and time of another",
        "users without a training event: 1",
        "items found in the item file: 1 of 2",
    ]
    assert parts_line(store) == "split: temporal (9 train, 1 valid, 2 test events; 1 users tested)"
