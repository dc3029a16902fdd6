"""Items that come after training with their features: answered, in histories, kept, killed, refused."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.answering.each import Answer, Reading, Request
from recsys.datasets.preparing.new_items import read_new_items
from recsys.decoding.decoder import Decoder
from recsys.errors import ArgumentError, DataError, RecsysError, RetrievalError, UnknownIdError
from recsys.retrieval import bundle
from recsys.run_folder import fingerprint
from tests.answering.models import N_ITEMS, day_log, random_model

COLD = [100, 101, 102]
NEW = [200, 201, 202]
WIDTH = 6
FEATURES: dict[str, Any] = {"item_tags": "kind,maker", "item_words": "title", "item_vectors": "vector"}


def features(ids: list[int]) -> pl.DataFrame:
    """Features of items by the last digit of their ids, so that 100 and 200 are alike."""
    digits = [own % 10 if own >= COLD[0] else 3 + own % 5 for own in ids]
    drawn = np.random.default_rng(5).normal(size=(10, WIDTH))
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"film {'of the' if digit % 2 else 'about'} night" for digit in digits],
            "kind": [["a", "b"][: 1 + digit % 2] for digit in digits],
            "maker": [f"m{digit % 3}" for digit in digits],
            "vector": [drawn[digit].tolist() for digit in digits],
            "category": ["a" if digit % 2 else "b|c" for digit in digits],
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("described") / "data")
    items = features([*range(N_ITEMS), *COLD])
    recsys.prepare(day_log()[0], folder, items=items, time_zone="-05:00", keep_cold=True, **FEATURES)
    return folder


def trained(name: str, data: Path, **options: Any) -> Recommender:
    return random_model(name, data, **{"item_parts": "id+features", **options})


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved run with its index, which tests copy before they change it."""
    folder = tmp_path_factory.mktemp("described-run") / "run"
    trained("sasrec", data).save(folder)
    return folder


@pytest.fixture
def model(run: Path, tmp_path: Path) -> Recommender:
    shutil.copytree(run, tmp_path / "run")
    return recsys.load(tmp_path / "run")


def vectors_of(model: Recommender, ids: list[int]) -> np.ndarray[Any, Any]:
    live = model.decoder_.live
    assert live is not None
    return live.snapshot().vectors(model._names.answerable.encode(ids))


def asked(model: Recommender, history: list[int], **options: Any) -> tuple[list[Any], list[float]]:
    """Answers to a history among the items that the log has events of."""
    more: dict[str, Any] = {}
    if model.encoder_.reads_request_time:
        more = {"times": [[1_600_000_000 + 5000 * place for place in range(len(history))]]}
    options |= {"deny": [*COLD, *NEW], "on_unknown": "ignore"}
    found = model.recommend_arrays(histories=[history], k=N_ITEMS, exclude_seen=False, **options, **more)
    return found[0][0].tolist(), found[1][0].tolist()


def renamed(history: list[int]) -> list[int]:
    return [NEW[COLD.index(item)] if item in COLD else item for item in history]


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("sasrec", {}),
    ("sasrec", {"tie_items": False, "clock": "hours"}),
    ("sasrec", {"item_hashes": 2, "item_buckets": 7, "clock": "pool"}),
    ("sasrec", {"item_parts": "features", "item_projection": "mlp"}),
    ("bert4rec", {"clock": "pool"}),
    ("bert4rec", {"clock": "hours"}),
    ("mamba", {"d_state": 4}),
]
HISTORIES = [[1, 2, 100], [100], [101, 100, 3, 101], [*range(20), 102, 4, 100, 5]]


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_an_added_item_has_the_bits_of_a_cold_one(name: str, options: dict[str, Any], data: Path) -> None:
    model = trained(name, data, **options)
    before = asked(model, [1, 2, 3])
    model.add_items(features(NEW))
    assert asked(model, [1, 2, 3]) == before
    rows = model._names.items.encode(COLD)
    wanted = model.encoder_.item_vectors()[rows].float().numpy()
    assert np.abs(wanted).sum(axis=1).min() > 0
    np.testing.assert_array_equal(vectors_of(model, NEW), wanted)
    for history in HISTORIES:
        assert asked(model, history) == asked(model, renamed(history))
        assert asked(model, history, interests=3) == asked(model, renamed(history), interests=3)
        # And it says something: without it the answer is another.
        without = [item for item in history if item not in COLD]
        assert not without or asked(model, history) != asked(model, without)
    more: dict[str, Any] = {}
    if model.encoder_.reads_request_time:
        more = {"times": [[1_600_000_000, 1_600_000_100]]}
    found = model.recommend(histories=[[1, 2]], k=N_ITEMS + 6, exclude_seen=False, **more)
    scores = dict(zip(found["item_id"].to_list(), found["score"].to_list(), strict=True))
    assert set(NEW) <= set(scores)
    assert [scores[item] for item in NEW] == [scores[item] for item in COLD]


@pytest.mark.parametrize(("name", "options"), [MODELS[0], MODELS[4], MODELS[5], MODELS[6]])
def test_kept_states_and_services_read_added_items(name: str, options: dict[str, Any], data: Path) -> None:
    model = trained(name, data, **options)
    model.add_items(features(NEW))
    live = model.live_users()
    start = 1_900_000_000
    for place in range(20):  # past the window
        for user, ids in (("cold", COLD), ("new", NEW)):
            key = 7001 if user == "cold" else 7002
            live.append(key, ids[place % 3] if place % 2 else place, start + 1000 * place)
        if place % 4 == 3:
            one, other = (
                live.recommend([key], k=N_ITEMS, exclude_seen=False, deny=[*COLD, *NEW])
                for key in (7001, 7002)
            )
            assert one["item_id"].to_list() == other["item_id"].to_list()
            np.testing.assert_array_equal(one["score"].to_numpy(), other["score"].to_numpy())
    requests = [
        Request(history=ids, times=[start, start + 60, start + 90], k=5, deny=[*COLD, *NEW])
        for ids in ([1, 100, 101], [1, 200, 201])
    ]
    answers = [own for own in model.answerer().answer(requests) if isinstance(own, Answer)]
    assert [own.reading.unknown for own in answers] == [(), ()]
    assert answers[0].ids == answers[1].ids
    # What was read is left out of the answer, unless it may come again.
    (again,) = model.answerer().answer([Request(history=[200], times=[start], k=N_ITEMS + 6)])
    assert isinstance(again, Answer)
    assert 200 not in again.ids
    assert 201 in again.ids


def test_added_items_are_similar_to_what_they_are_like(model: Recommender) -> None:
    model.add_items(features(NEW))
    near = model.similar_items([200, 100], k=1)
    assert near["similar_item_id"].to_list() == [100, 200]
    others = [model.similar_items([item], k=5, deny=[200, 100]) for item in (200, 100)]
    assert others[0]["similar_item_id"].to_list() == others[1]["similar_item_id"].to_list()
    assert others[0]["score"].to_list() == others[1]["score"].to_list()


def test_titles_and_categories_come_with_the_file(model: Recommender) -> None:
    model.add_items(features(NEW))
    found = model.recommend(histories=[[1]], k=60, category="c")
    titles = dict(zip(found["item_id"].to_list(), found["title"].to_list(), strict=True))
    assert titles[200] == titles[202] == "film about night"
    assert 201 not in titles


def pandas_frame(frame: pl.DataFrame) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(frame.to_dict(as_series=False))


@pytest.mark.parametrize("kind", ["pandas", "arrow", "mapping", "lazy", "parquet", "some"])
def test_items_come_as_files_and_frames(kind: str, model: Recommender, tmp_path: Path) -> None:
    frame = features(NEW)
    if kind == "parquet":
        frame.write_parquet(tmp_path / "new.parquet")
    made: dict[str, Callable[[], Any]] = {
        "pandas": lambda: pandas_frame(frame),
        "arrow": frame.to_arrow,
        "mapping": lambda: frame.to_dict(as_series=False),
        "lazy": frame.lazy,
        "parquet": lambda: tmp_path / "new.parquet",
        "some": lambda: frame.select("item_id", "title", "kind", "maker"),
    }
    named: dict[str, Any] = {"item_tags": "kind,maker", "item_words": "title"} if kind == "some" else {}
    model.add_items(made[kind](), **named)
    wanted = model.encoder_.item_vectors()[model._names.items.encode(COLD)].numpy()
    found = vectors_of(model, NEW)
    assert np.array_equal(found, wanted) == (kind != "some")
    assert np.abs(found).sum(axis=1).min() > 0


def test_vectors_may_be_an_array_or_a_function(model: Recommender, tmp_path: Path) -> None:
    frame = features(NEW)
    array = np.array(frame["vector"].to_list())
    wanted = model.encoder_.item_vectors()[model._names.items.encode(COLD)].numpy()
    np.save(tmp_path / "new.npy", array)
    for number, vectors in enumerate((array, lambda texts: array[: len(texts)], tmp_path / "new.npy")):
        other = frame.with_columns(item_id=pl.Series([item + 100 * number for item in NEW]))
        model.add_items(other.drop("vector"), **{**FEATURES, "item_vectors": vectors})
        np.testing.assert_array_equal(vectors_of(model, other["item_id"].to_list()), wanted)


def reopened(model: Recommender) -> Recommender:
    model.save_changes()
    assert model._folder is not None
    return recsys.load(model._folder)


def test_what_was_added_is_found_again(model: Recommender) -> None:
    model.add_items([300], like=[[1, 2]])  # one that no history can hold is numbered before them
    model.add_items(features(NEW))
    again = reopened(model)
    for history in HISTORIES:
        assert asked(again, renamed(history)) == asked(model, history)
    with pytest.raises(UnknownIdError, match="300"):
        again.recommend(histories=[[1, 300]])
    every = [own.recommend(histories=[[1, 200]], k=40) for own in (model, again)]
    assert every[0].equals(every[1])
    # A copy, another index, another process's pickle: all have them.
    again.build_index("exact")
    assert again.recommend(histories=[[1, 200]], k=40).equals(every[0])
    assert again._folder is not None
    again.save(again._folder.parent / "copy")
    copied = recsys.load(again._folder.parent / "copy")
    assert copied.recommend(histories=[[1, 200]], k=40).equals(every[0])


def test_a_removed_item_stays_in_histories_and_may_come_again(model: Recommender) -> None:
    model.add_items(features(NEW))
    before = asked(model, [1, 200, 201])
    model.remove_items([201, 200])
    for own in (model, reopened(model)):
        assert asked(own, [1, 200, 201]) == before
        found = own.recommend(histories=[[1, 200]], k=60, exclude_seen=False)["item_id"].to_list()
        assert 202 in found
        assert not {200, 201} & set(found)
    model.remove_items([202])  # nothing is left of what came, but for what histories may hold
    again = reopened(model)
    assert asked(again, [1, 200, 201]) == before
    assert again.recommend(histories=[[202]], k=60, exclude_seen=False).height == N_ITEMS + 3
    again.add_items(features([201]).with_columns(kind=pl.Series([["a"]])))
    assert 201 in again.recommend(histories=[[1]], k=60)["item_id"].to_list()
    assert asked(again, [1, 200, 201]) != before
    assert asked(again, [1, 200]) == asked(model, [1, 200])


def test_a_damaged_byte_of_what_was_added_is_refused(model: Recommender) -> None:
    model.add_items(features(NEW))
    folder = model.save_changes()
    known = fingerprint(model.encoder_), model._names.items.digest()
    Decoder.load(folder, *known)
    files = [*folder.glob("changes-*"), folder / "manifest.json"]
    assert len(files) == 2
    for file in files:
        whole = file.read_bytes()
        for place in range(0, len(whole), 3):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            with pytest.raises(RetrievalError):
                Decoder.load(folder, *known)
        file.write_bytes(whole)
    Decoder.load(folder, *known)


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import polars as pl
import recsys

root, frame = Path(sys.argv[1]), pl.read_parquet(sys.argv[2])
shutil.copytree(root / "run", root / "warm")
model = recsys.load(root / "warm")
model.add_items(frame[:1])
first = root / "first"
shutil.copytree(root / "run", first)
model._decoder._saved = first / "index", model._decoder._saved[1]
model.save_changes()
state = model._decoder._saved[1]
model.add_items(frame[1:])
model.remove_items(frame["item_id"][:1].to_list())
point, counting, fsync = 0, False, os.fsync

def reach(*_):
    global point
    point -= 1
    if point == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def audit(event, arguments):
    watched = "open os.rename os.remove os.mkdir os.chmod os.listdir os.scandir fcntl.flock".split()
    if counting and event in watched and str(root) in str(arguments):
        reach()

def slow_sync(handle):
    reach()
    fsync(handle)
    reach()

os.fsync = slow_sync
sys.addaudithook(audit)
for number in range(1, 200):
    point = 10**9
    target = root / f"killed-{number}"
    shutil.copytree(first / "index", target)
    model._decoder._saved = target, state
    child = os.fork()
    if child == 0:
        point, counting = number, True
        model.save_changes()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(number, os.WIFSIGNALED(status), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


def test_a_kill_at_any_write_leaves_the_old_items_or_the_new(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    features(NEW).write_parquet(tmp_path / "new.parquet")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "new.parquet")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert ended.returncode == 0, ended.stderr
    whole = recsys.load(run)
    digests = fingerprint(whole.encoder_), whole._names.items.digest()
    seen = []
    for number, killed in (line.split() for line in ended.stdout.splitlines()):
        folder = tmp_path / f"killed-{number}"
        opened = Decoder.load(folder, *digests).opened
        assert opened is not None
        answered = {label[0] for label in opened.labels}
        assert answered in ({200}, {201, 202})
        seen.append("old" if answered == {200} else "new")
        assert killed == "True" or seen[-1] == "new"
        if int(number) % 9 and killed == "True":
            continue
        shutil.rmtree(tmp_path / "first" / "index")
        shutil.copytree(folder, tmp_path / "first" / "index")
        model = recsys.load(tmp_path / "first")
        found = set(model.recommend(histories=[[1]], k=60)["item_id"].to_list())
        assert found & set(NEW) == answered
        readable = (model._names.readable.encode(NEW) >= 0).tolist()
        assert readable == ([True, False, False] if answered == {200} else [True, True, True])
        asked(model, [1, 200])
        # What a kill left behind is swept by the next change.
        model.remove_items([3])
        assert len(list(model.save_changes().iterdir())) == 4
    assert seen.count("old") > 8
    assert seen.count("new") > 3
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("what", ["settle", "save_tensors", "_sync_folder"])
def test_a_disk_that_fails_at_a_write_leaves_the_old_items(
    what: str, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.add_items(features(NEW[:1]))
    folder = model.save_changes()
    known = fingerprint(model.encoder_), model._names.items.digest()
    model.add_items(features(NEW[1:]))
    real, calls, at = getattr(bundle, what), 0, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(bundle, what, failing)
    for at in range(1, 10):
        calls, failure = 0, None
        try:
            model.save_changes()
        except RetrievalError as error:
            failure = str(error)
        if failure is None:
            break
        assert failure.endswith("the disk is full; free some space and run again")
        opened = Decoder.load(folder, *known).opened
        assert opened is not None
        # What fails after the manifest is in place leaves the new ones.
        done = what == "_sync_folder" and at > 1
        assert [label[0] for label in opened.labels] == (NEW if done else NEW[:1])
        if done:
            return
    assert at > 1
    assert 202 in recsys.load(folder.parent).recommend(histories=[[1, 201]], k=60)["item_id"].to_list()


def test_other_features_are_read_by_kept_states_too(model: Recommender) -> None:
    model.add_items(features(NEW))
    live, answerer = model.live_users(), model.answerer()
    times = [1_900_000_000, 1_900_000_100]
    for item, time in zip([3, 201], times, strict=True):
        live.append(7001, item, time)
    request = Request(history=[3, 201], times=times, k=20)

    def asked_all() -> tuple[bytes, list[float], list[float]]:
        (reading,) = answerer.read([request])
        assert isinstance(reading, Reading)
        (answer,) = answerer.answer([request])
        assert isinstance(answer, Answer)
        scores = live.recommend([7001], k=20)["score"].to_list()
        return reading.state_key(), answer.scores.tolist(), scores

    first = asked_all()
    model.add_items(features([210]))
    model.remove_items([201, 210])
    key, scores, kept = asked_all()
    assert (key, scores, kept) == (first[0], *(own[: len(scores)] for own in first[1:]))
    model.add_items(features([202]).with_columns(item_id=pl.Series([201])))
    key, scores, kept = asked_all()
    assert key != first[0]
    assert scores != first[1]
    np.testing.assert_allclose(kept, scores, rtol=1e-4, atol=1e-5)
    assert live.states.misses == 2  # at the first event, and when the features had become others


def test_an_added_item_may_come_into_the_catalog_of_a_later_run(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"d_model": 16, "n_layers": 1, "max_length": 16, "item_parts": "id+features"}
    options |= {"clock": "off", "repeat_by": "last"}  # whatever the preset chooses for the log
    training = {"epochs": 1, "batch_events": 512}
    first = Recommender(encoder_options=options, training_options=training).fit(data, out=tmp_path / "run")
    first.save_index(tmp_path / "run" / "index")
    first.add_items(features(NEW))
    first.save_changes()
    log, _ = day_log()
    more = log.with_columns(item_id=pl.when(pl.col("item_id") == 7).then(200).otherwise(pl.col("item_id")))
    items = features([*range(N_ITEMS), *COLD, 200])
    recsys.prepare(
        pl.concat([log, more.with_columns(pl.col("user_id") + 1000)]),
        tmp_path / "data",
        items=items,
        time_zone="-05:00",
        keep_cold=True,
        **FEATURES,
    )
    later = Recommender(encoder_options=options, training_options=training)
    later.fit(tmp_path / "data", out=tmp_path / "later", from_run=tmp_path / "run")
    loaded = recsys.load(tmp_path / "later")
    assert loaded.store_.item_counts()[loaded._names.items.encode([200])[0]] > 0
    assert loaded._names.readable.encode([200, 201]).tolist()[1] == -1
    found = loaded.recommend(histories=[[1, 200]], k=60, exclude_seen=False)["item_id"].to_list()
    assert 200 in found
    assert 201 not in found
    with pytest.raises(ArgumentError, match="item 200 is in the catalog already"):
        loaded.add_items(features(NEW))
    loaded.add_items(features(NEW[1:]))
    assert 201 in loaded.recommend(histories=[[1, 201]], k=60, exclude_seen=False)["item_id"].to_list()
    # The run before is what it was.
    assert asked(recsys.load(tmp_path / "run"), [1, 200]) == asked(first, [1, 200])


BAD: dict[str, tuple[Callable[[pl.DataFrame], Any], dict[str, Any], str]] = {
    "known": (
        lambda f: f.with_columns(item_id=pl.Series([5, 201, 202])),
        {},
        "item 5 is in the catalog already",
    ),
    "cold": (lambda f: f.with_columns(item_id=pl.Series([100, 201, 202])), {}, "item 100 is in the catalog"),
    "doubled": (lambda f: pl.concat([f, f[:1]]), {}, "'200' stands in rows 1 and 4"),
    "spelled twice": (
        lambda f: f.with_columns(item_id=pl.Series(["200", "200.0", "7"])),
        {},
        "are one item of the log",
    ),
    "no number": (lambda f: f.with_columns(item_id=pl.Series(["x", "y", "z"])), {}, "'x' is no whole number"),
    "nobody": (lambda f: f.with_columns(item_id=pl.Series([200, None, 202])), {}, "row 2 has no item id"),
    "no ids": (lambda f: f.drop("item_id"), {}, "no item column"),
    "empty": (lambda f: f[:0], {}, "holds no item"),
    "no column": (lambda f: f.drop("maker"), {}, "has no column 'maker'"),
    "no vectors": (lambda f: f.drop("vector"), {}, "name those of these items with item_vectors="),
    "width": (
        lambda f: f.with_columns(vector=pl.Series([[1.0, 2.0]] * 3)),
        {},
        "vectors have 2 numbers, those of the run's items 6",
    ),
    "ragged": (lambda f: f.with_columns(vector=pl.Series([[1.0] * 6, [1.0], [2.0] * 6])), {}, "one width"),
    "nan": (
        lambda f: f.with_columns(vector=pl.Series([[1.0] * 6, [float("nan")] * 6, [2.0] * 6])),
        {},
        "NaN or infinity in the vector of item 201",
    ),
    "tag": (
        lambda f: f.with_columns(maker=pl.Series(["m0", "m12", "x"])),
        {},
        r"item 201 bears 'm12' in column 'maker' and 1 more.*did you mean 'm2'\? on_unknown='warn' leaves",
    ),
    "category": (
        lambda f: f.with_columns(category=pl.Series(["a", "zzz", "b"])),
        {},
        "unknown category 'zzz'",
    ),
    "bare": (
        lambda f: f.with_columns(title=pl.Series(["night", "zebra", "film"])),
        {"item_words": "title"},
        "nothing that the run knows is said of item 201",
    ),
    "other tags": (
        lambda f: f,
        {"item_tags": "brand"},
        "item_tags=brand: the run was prepared with kind, maker, and not",
    ),
    "words as tags": (lambda f: f, {"item_tags": "title"}, "name it with item_words=title"),
    "on_unknown": (lambda f: f, {"on_unknown": "skip"}, "raise, warn or ignore"),
    "with vectors": (lambda f: f, {"vectors": np.ones((3, 16))}, "go with ids"),
    "ids with tags": (lambda f: [200], {"item_tags": "kind"}, "go with a frame of items"),
    "one id": (
        lambda f: "200",
        {"vectors": np.ones((1, 16))},
        "must be a list of ids, not the single string",
    ),
    "no file": (lambda f: "none.parquet", {}, "none.parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_and_changes_nothing(case: str, model: Recommender) -> None:
    make, options, words = BAD[case]
    with pytest.raises(RecsysError, match=words) as error:
        model.add_items(make(features(NEW)), **options)
    assert "\n" not in str(error.value)
    assert model._names.answerable.encode(NEW).tolist() == [-1, -1, -1]
    assert model.encoder_.n_later_items == 0
    model.add_items(features(NEW))
    with pytest.raises(ArgumentError, match="item 200 is in the catalog already"):
        model.add_items(features(NEW))


def test_unknown_tags_and_categories_are_left_out_where_that_is_asked_for(model: Recommender) -> None:
    frame = features(NEW).with_columns(
        maker=pl.Series(["m0", "other", "m2"]), category=pl.Series(["a|zzz", "a", "b"])
    )
    with pytest.warns(UserWarning, match="left out") as told:
        model.add_items(frame, on_unknown="warn")
    assert "item 201 bears 'other' in column 'maker'" in str(told[0].message)
    assert "unknown category 'zzz'" in str(told[1].message)
    other = features([210, 211, 212]).with_columns(maker=pl.Series(["m0", None, "m2"]))
    model.add_items(other, on_unknown="ignore")
    np.testing.assert_array_equal(vectors_of(model, NEW), vectors_of(model, [210, 211, 212]))


def test_models_without_features_and_indexes_of_other_vectors_say_what_they_need(
    data: Path, model: Recommender
) -> None:
    plain = random_model("sasrec", data)
    with pytest.raises(ArgumentError, match="ids alone and reads no features: add by like="):
        plain.add_items(features(NEW))
    model.build_index("exact", vectors="latent")
    with pytest.raises(ArgumentError, match="index holds latent vectors"):
        model.add_items(features(NEW))


def test_changes_of_another_kind_are_refused(
    model: Recommender, run: Path, data: Path, tmp_path: Path
) -> None:
    model.add_items(features(NEW))
    live = model.decoder_.live
    assert live is not None
    changes = model._names.answerable.changes(live)
    for name in changes.extra:
        extra = {**changes.extra, name: changes.extra[name][1:]}
        damaged = type(changes)(changes.gone, changes.ids, changes.vectors, changes.labels, extra)
        fresh = recsys.load(run)
        with pytest.raises((RetrievalError, ArgumentError)):
            fresh._names.answerable.restore(damaged)
    store = recsys.prepare(day_log()[0], tmp_path / "plain")
    with pytest.raises(DataError, match="prepared without features"):
        read_new_items(features(NEW), store)
