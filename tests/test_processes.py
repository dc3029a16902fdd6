"""Models in other processes and threads: forked, spawned, pickled, by eight threads at once, after chdir."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, RunError
from tests.conftest import random_log

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 16}
QUICK = {"epochs": 1, "batch_events": 512}

FORKED = """
import os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
warnings.simplefilter("ignore", RuntimeWarning)
import torch
torch.set_num_threads(2)
import recsys

def in_child(what):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            print(what(), flush=True)
        except recsys.errors.RecsysError as error:
            print("refused:", error, flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child was killed: it hung"

def answers():
    by_user = model.recommend(users=["u1", "u7"], k=4)
    by_history = model.recommend(histories=[["i1", "i2"]] * 40, k=4, exclude_seen=False, category="Drama")
    denied = model.recommend(users=["u1"], k=4, deny=[f"i{n}" for n in range(300)], on_unknown="ignore")
    near = model.similar_items(["i3"], k=3, allow=["i4", "i5"])
    return [frame["item_id"].to_list() for frame in (by_user, by_history[-4:], denied)], near.rows(), \
        by_user["title"].to_list()

model = recsys.load(sys.argv[1])
in_child(answers)
print(answers())
in_child(answers)
in_child(lambda: recsys.load(sys.argv[1]))
in_child(lambda: model.score(sys.argv[2]))
in_child(lambda: recsys.prepare({"user_id": [1], "item_id": [1], "timestamp": [1]}, sys.argv[2]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with text ids, titles and categories."""
    folder = Path(tmp_path_factory.mktemp("processes"))
    log = random_log(users=60, items=30, seed=5).with_columns(
        user_id="u" + pl.col("user_id").cast(pl.String), item_id="i" + pl.col("item_id").cast(pl.String)
    )
    names = [f"i{n}" for n in range(30)]
    items = {"item_id": names, "title": [f"Film {n}" for n in names], "genres": ["Drama", "War"] * 15}
    pl.DataFrame(items).write_csv(folder / "items.csv")
    recsys.prepare(log, folder / "data", items=folder / "items.csv")
    model = Recommender("sasrec", encoder_options=SMALL, training_options=QUICK).fit(folder / "data")
    model.build_index()
    model.save(folder / "run")
    return folder / "run"


def test_a_forked_child_answers_or_says_why_not(run: Path, tmp_path: Path) -> None:
    # Two threads in the parent, whatever the tests have: that is what a child would wait for.
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(run), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cold, parent, warm, *others = done.stdout.strip().splitlines()
    assert cold == parent == warm
    assert len(others) == 3
    for line in others:
        assert line.startswith("refused: ")
        assert "load the run before the fork" in line
    assert not (tmp_path / "out").exists()


HELD = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import torch
torch.set_num_threads(1)
import recsys
from recsys import recommender

def in_child(what):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        what()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child was killed: it hung"

def change():
    model.add_items(["new"], like=[["i1", "i2"]])
    model.remove_items(["i3"])
    model.build_index("exact")
    live.append("u1", "i4", 2_000_000_000)
    model._decoder = None
    model.decoder_

model = recsys.load(sys.argv[1])
live = model.live_users()
model.remove_items(["i9"])
changing = model.decoder_.live
held, open_again = threading.Event(), threading.Event()

def hold():
    with recommender._CHANGING, recommender._BUILDING, changing._lock, live._lock, live.states._lock:
        held.set()
        open_again.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
in_child(change)
open_again.set()
thread.join()
with recommender._CHANGING:
    # The thread that forks holds it on both sides.
    with recommender._CHANGING:
        in_child(change)
        child = os.fork()
    if child == 0:
        assert recommender._CHANGING._holder == threading.get_ident()
if child == 0:
    assert recommender._CHANGING._holder is None
    change()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
change()
"""


def test_a_forked_child_does_not_wait_for_its_parents_threads(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD, str(run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_eight_threads_ask_a_fresh_model_at_once(run: Path) -> None:
    model = recsys.load(run)
    model._decoder = None
    wanted = recsys.load(run).recommend(k=5).rows()
    found: list[Any] = [None] * 8
    together = threading.Barrier(8)

    def ask(place: int) -> None:
        together.wait()
        found[place] = model.recommend(k=5).rows(), model.similar_items(["i3"]).rows(), model.decoder_

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer[0] == wanted and answer[1] == found[0][1] for answer in found)
    assert len({id(answer[2]) for answer in found}) == 1


def test_a_model_is_pickled_as_its_folder(run: Path, tmp_path: Path) -> None:
    model = recsys.load(run)
    packed = pickle.dumps(model)
    assert len(packed) < 2000
    for other in (pickle.loads(packed), copy.deepcopy(model)):
        assert other.recommend(k=3).equals(model.recommend(k=3))
    # In a fresh interpreter, which is what spawn, joblib and Ray start.
    (tmp_path / "model.pickle").write_bytes(packed)
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).recommend(['u1'], k=3).rows())"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.pickle")],
        capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == str(model.recommend(["u1"], k=3).rows())


def test_what_no_folder_holds_is_not_pickled(run: Path, tmp_path: Path) -> None:
    fresh = Recommender("mamba", seed=3)
    again = pickle.loads(pickle.dumps(fresh))
    assert (again.encoder, again.seed) == ("mamba", 3)
    fitted = Recommender("sasrec", encoder_options=SMALL, training_options=QUICK)
    fitted.fit(random_log(users=20, items=10, seed=1))
    with pytest.raises(ArgumentError, match=r"lies in no folder: save\(PATH\)"):
        copy.deepcopy(fitted)
    assert copy.copy(fitted).encoder_ is fitted.encoder_
    fitted.save(tmp_path / "run")
    packed = pickle.dumps(fitted)
    assert pickle.loads(packed).recommend(k=3).equals(fitted.recommend(k=3))
    model = recsys.load(run)
    model.remove_items(["i3"])
    with pytest.raises(ArgumentError, match=r"save_changes\(\) or save"):
        pickle.dumps(model)
    other = recsys.load(run)
    other.build_index("exact", vectors="latent")
    with pytest.raises(ArgumentError, match="is not the one in"):
        pickle.dumps(other)
    other.save(tmp_path / "other")
    assert pickle.loads(pickle.dumps(other)).index_.metric == "l2"
    # The folder holds another model by now.
    with_other_weights = Recommender("sasrec", encoder_options=SMALL, training_options=QUICK, seed=9)
    with_other_weights.fit(random_log(users=20, items=10, seed=1))
    (tmp_path / "run").rename(tmp_path / "gone")
    with pytest.raises(RunError, match="no such run folder"):
        pickle.loads(packed)
    with_other_weights.save(tmp_path / "run")
    with pytest.raises(RunError, match="holds another model than the one that was pickled"):
        pickle.loads(packed)


def test_parts_of_a_model_say_how_they_go_elsewhere(run: Path) -> None:
    model = recsys.load(run)
    live = model.live_users()
    model.remove_items(["i3"])
    for part, message in (
        (model.index_, r"save\(FOLDER\)"),
        (model.decoder_, r"save\(FOLDER\)"),
        (model.decoder_.live, "load_live"),
        (live, r"live_users\(\)"),
        (live.states, "each process keeps its own"),
    ):
        with pytest.raises(ArgumentError, match=message):
            pickle.dumps(part)
        with pytest.raises(ArgumentError, match=message):
            copy.deepcopy(part)


def test_a_relative_path_outlives_chdir(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    model = recsys.load(run.name)
    wanted = recsys.load(run).recommend(k=3)
    monkeypatch.chdir(tmp_path)
    assert model.recommend(k=3).equals(wanted)
    assert model.recommend(histories=[["i1"]], category="War", k=3)["title"].len() == 3
    assert pickle.loads(pickle.dumps(model)).recommend(k=3).equals(wanted)
    model.add_items(["new"], like=[["i1"]])
    assert model.save_changes() == run / "index"
    model.remove_items(["new"])
    model.save_changes()
    assert os.listdir(tmp_path) == []
    assert np.isin("i1", recsys.load(run).recommend(histories=[["i2"]], k=30)["item_id"].to_list())
