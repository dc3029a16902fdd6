"""The look at a store after kills: it tells what is lost, invented, and what is well."""

from pathlib import Path

import pytest

from recsys.benchmarks.serving.kills import _look
from recsys.benchmarks.serving.numbered import Book
from recsys.events.store import Event


def test_a_look_counts_what_was_lost_and_what_nobody_sent(tmp_path: Path) -> None:
    pytest.importorskip("apsw", reason="the extra serve is not installed")
    from recsys.events.sqlite import SqliteStore

    path = tmp_path / "events.db"
    store = SqliteStore(path)
    store.append([Event(1, 10, 0, id="a"), Event(1, 11, 0, id="b"), Event(2, 12, 0, id="c")])
    store.close()
    well = {
        1: Book(1, 0, {"a": 10, "b": 11, "never stored": 5}, {"a"}),
        2: Book(2, 0, {"c": 12}, {"c"}),
    }
    assert +_look(path, well) == {"looks": 1}
    wrong = {1: Book(1, 0, {"a": 10, "b": 99, "d": 5}, {"a", "d"})}
    assert +_look(path, wrong) == {"looks": 1, "lost": 1, "invented": 2}
