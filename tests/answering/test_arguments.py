"""What a call may pass: ids, counts and moments in any form, refused in one line before memory is taken."""

import datetime
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import recsys
from recsys import Recommender
from recsys.answering.request_times import ask_at, moment_list, read_moment
from recsys.datasets.synthetic.logs import clock_log
from recsys.errors import ArgumentError, KeywordError, RecsysError, UnknownIdError
from tests.conftest import random_log

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 16}
QUICK = {"epochs": 1, "batch_events": 512}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = Path(tmp_path_factory.mktemp("arguments"))
    items = {"item_id": range(30), "genres": ["Drama", "War"] * 15}
    pl.DataFrame(items).write_csv(folder / "items.csv")
    recsys.prepare(random_log(users=60, items=30, seed=5), folder / "data", items=folder / "items.csv")
    return Recommender("sasrec", encoder_options=SMALL, training_options=QUICK, index="exact").fit(
        folder / "data"
    )


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = Path(tmp_path_factory.mktemp("clocked"))
    recsys.prepare(clock_log(20, 10, mean_length=8).frame, folder / "data", time_zone="+02:00")
    options = {**SMALL, "clock": "pool"}
    return Recommender("sasrec", encoder_options=options, training_options=QUICK).fit(folder / "data")


@pytest.mark.parametrize(
    "users",
    [
        [3, "7"], ("3", 7.0), np.array([3, 7]), pl.Series([3, 7]), pl.Series(["3", "7"]), pa.array([3, 7]),
        iter([3, 7]), {3: 0, 7: 0}.keys(), [np.int64(3), np.str_("7")],
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_users_come_in_any_form_and_go_in_the_logs_own_type(model: Recommender, users: Any) -> None:
    found = model.recommend(users, k=1)
    assert found["user_id"].dtype == pl.Int64
    assert found["user_id"].to_list() == [3, 7]


def test_an_empty_answer_keeps_its_types(model: Recommender) -> None:
    some, none = model.recommend([3]), model.recommend([])
    assert none.schema == some.schema
    assert model.recommend(histories=[]).schema == some.schema


@pytest.mark.parametrize(
    "histories",
    [
        np.array([[1, 2], [3, 4]]),
        [np.array([1, 2]), (3, 4)],
        pl.Series([[1, 2], [3, 4]]),
        iter([[1, 2], [3, 4]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_histories_come_in_any_form(model: Recommender, histories: Any) -> None:
    assert model.recommend(histories=histories, k=2).equals(model.recommend(histories=[[1, 2], [3, 4]], k=2))


WRONG: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("recommend", r"single id 1: users=\[1\]", (), {"users": 1}),
    ("recommend", r"single id 1: users=\[1\]", (), {"users": np.int64(1)}),
    ("recommend", r"single string 'a': users=\['a'\]", (), {"users": "a"}),
    ("recommend", "not a DataFrame: pass one column", (), {"users": pl.DataFrame({"u": [1]})}),
    ("recommend", "not a dict", (), {"users": {1: 2}}),
    ("recommend", "users must be a list of ids, not <object", (), {"users": object()}),
    ("recommend", "more than 10,000,000 ids", (), {"users": range(10**9)}),
    ("recommend", "more than 10,000,000 ids", (), {"users": range(10**20)}),
    ("recommend", "more than 10,000,000 ids", (), {"users": [1], "allow": itertools.count()}),
    ("recommend", r"histories=\[\[50, 181\]\]", (), {"histories": [50, 181]}),
    ("recommend", r"histories=\[\[50, 181\]\]", (), {"histories": np.array([50, 181])}),
    ("recommend", r"histories=\[\['a'\]\]", (), {"histories": ["a"]}),
    ("recommend", r"histories=\[\[5\]\]", (), {"histories": 5}),
    ("recommend", r"allow=\[3\]", (), {"users": [1], "allow": 3}),
    ("recommend", r"deny=\[3\]", (), {"users": [1], "deny": 3}),
    ("recommend", r"category must be a list", (), {"users": [1], "category": 3}),
    ("recommend", "the number of answers is k=5", ([1], 5), {}),
    ("recommend", "by place: name the others", ([1], None, 5), {}),
    ("recommend", "k = '3' must be a whole number", ([1],), {"k": "3"}),
    ("recommend", "k = 2.5 must be a whole number", ([1],), {"k": 2.5}),
    ("recommend", "k = True must be a whole number", ([1],), {"k": True}),
    ("recommend", "k = -1 must be at least 1", ([1],), {"k": -1}),
    ("recommend", "interests = 1000000000000 must be between 1 and 16", ([1],), {"interests": 10**12}),
    ("recommend", "exclude_seen='no' must be True or False", ([1],), {"exclude_seen": "no"}),
    ("recommend", "time_zone=5 is no text", ([1],), {"time_zone": 5}),
    ("recommend", r"unknown user 'x{56}\.\.\.:", (["x" * 10**5],), {}),
    ("live_users", "bytes_kept = 'x' must be a whole number", (), {"bytes_kept": "x"}),
    ("recommend", "no argument 'N': k= is meant", ([1],), {"N": 3}),
    ("recommend", "exclude_seen= is meant", ([1],), {"filter_viewed": True}),
    ("recommend", "exclude_seen= is meant", ([1],), {"filter_already_liked_items": True}),
    ("recommend", "allow= is meant", ([1],), {"items_to_recommend": [1]}),
    ("recommend", "histories= is meant", (), {"history": [1]}),
    ("recommend", "leave it out", ([1],), {"dataset": None}),
    ("recommend", "it has users, histories", ([1],), {"xyz": None}),
    ("recommend_arrays", "no argument 'topk': k= is meant", ([1],), {"topk": 3}),
    ("similar_items", r"items=\[50\]", (50,), {}),
    ("similar_items", "similar_items\\(\\) needs items", (), {}),
    ("similar_items", "k= is meant", ([5],), {"N": 3}),
    ("add_items", r"ids=\[50\]", (50,), {"like": [[1]]}),
    ("add_items", r"like=\[1\]", ([50],), {"like": [1]}),
    ("add_items", r"category=\['War'\]", ([50],), {"category": "War"}),
    ("remove_items", r"remove=\[50\]", (50,), {}),
    ("score", r"users=\[1\]", ("/nowhere", 1), {}),
    ("score", "part_users = 0.5 must be a whole number", ("/nowhere", [1]), {"part_users": 0.5}),
    ("score", "k = '3' must be a whole number", ("/nowhere", [1]), {"k": "3"}),
    ("measure_recall", "users = 'a' must be a whole number", ("a",), {}),
    ("fit", "data= is meant", (), {"dataset": 3}),
]


@pytest.mark.parametrize(("method", "message", "arguments", "named"), WRONG)
def test_a_call_that_cannot_be_meant_says_what_is(
    model: Recommender, method: str, message: str, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with pytest.raises(RecsysError, match=message) as caught:
        getattr(model, method)(*arguments, **named)
    assert "\n" not in str(caught.value)
    # Code that catches what Python itself raises for wrong arguments goes on.
    assert isinstance(caught.value, TypeError) == isinstance(caught.value, KeywordError)


def test_the_constructor_names_the_options_that_are_meant() -> None:
    with pytest.raises(KeywordError, match=r"write training_options=\{'learning_rate': ...\}"):
        Recommender("sasrec", lr=0.1)  # type: ignore[call-arg]
    with pytest.raises(RecsysError, match="training.seed"):
        Recommender(seed=10**30).configs()


def test_k_is_cut_to_what_exists_before_memory_is_taken(model: Recommender) -> None:
    all_items = model.recommend([3], k=30, exclude_seen=False)
    assert model.recommend([3], k=10**11, exclude_seen=False).equals(all_items)
    ids, scores = model.recommend_arrays([3], k=10**30)
    assert ids.shape == scores.shape == (1, 30)
    assert len(model.similar_items([5], k=10**11)) == 29
    with pytest.raises(ArgumentError, match="more than memory holds"):
        model.index_.search(np.zeros((1, 16), dtype=np.float32), 10**11)


def test_denying_what_the_catalog_lacks_is_counted_and_harmless(model: Recommender) -> None:
    with pytest.warns(UserWarning, match="deny: 2 of 3 ids are not in the catalog"):
        found = model.recommend([3], k=30, deny=[4, "x", 10**9], exclude_seen=False)
    assert len(found) == 29
    # Warnings name the line that made the call.
    calls: list[Callable[[], object]] = [
        lambda: model.recommend([3], deny=["x"]),
        lambda: model.recommend([3, "x"], on_unknown="warn"),
        lambda: model.recommend(histories=[[]]),
        lambda: model.live_users().recommend([10**6]),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match=".") as warned:
            call()
        assert [warning.filename for warning in warned] == [__file__]
    assert model.recommend([3], k=30, deny=["x"], on_unknown="ignore", exclude_seen=False).height == 30
    with pytest.raises(UnknownIdError, match="unknown item 'x'"):
        model.recommend([3], allow=["x"])


NOON = 1_900_000_800
UTC = datetime.UTC
FORMS = [
    (NOON, False), (NOON + 0.75, False), (np.float64(NOON), False), (np.int32(NOON), False),
    (datetime.datetime.fromtimestamp(NOON, UTC), False),
    (datetime.datetime.fromtimestamp(NOON, UTC).replace(tzinfo=None), True),
    (np.datetime64(NOON, "s"), True), (np.datetime64(NOON * 10**9, "ns"), True),
]  # fmt: skip


@pytest.mark.parametrize(("moment", "naive"), FORMS, ids=repr)
def test_moments_are_read_in_any_form(moment: Any, naive: bool) -> None:
    assert read_moment(moment, "at") == (NOON, naive)


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (NOON * 10**3, f"looks like milliseconds: give seconds, {NOON}"),
        (NOON * 10**6, f"looks like microseconds: give seconds, {NOON}"),
        (NOON * 10**9, f"looks like nanoseconds: give seconds, {NOON}"),
        (float(NOON * 10**3), "looks like milliseconds"),
        (10**40, "outside the years"),
        (-99_999_999_999, "outside the years"),
        (datetime.datetime(9999, 12, 31), "outside the years"),
        (datetime.datetime(1, 1, 1), "outside the years"),
        (np.datetime64("99999-01-01"), "outside the years|give unix seconds"),
        (np.datetime64("NaT"), "give unix seconds"),
        (float("nan"), "give unix seconds"),
        (float("inf"), "give unix seconds"),
        (True, "give unix seconds"),
        (None, "give unix seconds"),
        ([3], "give unix seconds"),
    ],
    ids=repr,
)
def test_moments_that_no_event_has_are_refused(moment: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_moment(moment, "at=...")


def test_lists_of_moments() -> None:
    stamps = np.array([NOON, NOON + 1])
    for listed in (
        stamps,
        pl.Series(stamps),
        stamps.astype("datetime64[s]").astype("datetime64[ns]"),
        [*stamps],
    ):
        read = moment_list(listed)
        assert read is not None
        assert [read_moment(moment, "at")[0] for moment in read] == [NOON, NOON + 1]
    for single in (NOON, "2026", np.datetime64(NOON, "s"), np.array(NOON), datetime.date(2026, 1, 1), {1: 2}):
        assert moment_list(single) is None


def test_a_moment_before_the_last_event_stands_for_its_hour() -> None:
    last, offsets = np.array([NOON, NOON]), np.array([3600, 3600])
    asked = ask_at([NOON - 2 * 86_400 - 60, NOON + 60], last, offsets, None, needs_local=True)
    unix, local, later = asked
    assert later == 1
    assert unix is not None
    assert local is not None
    assert unix.tolist() == [NOON + 86_400 - 60, NOON + 60]
    assert local.tolist() == [NOON + 86_400 + 3540, NOON + 3660]
    for wrong, message in (
        (20250301, "looks like a date: write 2025-03-01T08:30"),
        ("20250301", "like a date"),
    ):
        with pytest.raises(ArgumentError, match=message):
            ask_at(wrong, last, offsets, None, needs_local=True)
    with pytest.raises(ArgumentError, match="names no day"):
        ask_at("08:30", last, offsets, None, needs_local=True)


def test_times_and_at_are_read_alike(clocked: Recommender) -> None:
    stamps = [NOON, NOON + 3600]
    wanted = clocked.recommend(histories=[[1, 2]], times=[stamps], at=NOON + 7200, k=3)
    local = [datetime.datetime.fromtimestamp(t + 7200, UTC).replace(tzinfo=None) for t in stamps]
    aware = [datetime.datetime.fromtimestamp(t, UTC) for t in stamps]
    forms: list[Any] = [
        [[float(t) for t in stamps]], [local], [aware], np.array([stamps]), [pl.Series(local)],
        [np.array(local, dtype="datetime64[ns]")],
    ]  # fmt: skip
    for times in forms:
        found = clocked.recommend(histories=[[1, 2]], times=times, at=pl.Series([NOON + 7200.5]), k=3)
        assert found.equals(wanted)
    wrong: list[tuple[Any, str]] = [
        ([[t * 1000 for t in stamps]], "times of history 0 hold 1900000800000: looks like milliseconds"),
        (5, "times must be a list of lists"),
        ([5], "times of history 0 must be a list"),
        ([["2026-01-01T08:00", "2026-01-01T09:00"]], "times of history 0 hold '2026-01-01T08:00'"),
    ]
    for times, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            clocked.recommend(histories=[[1, 2]], times=times)
