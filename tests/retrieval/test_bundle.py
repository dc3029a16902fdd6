import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.errors import RetrievalError
from recsys.retrieval import bundle
from recsys.retrieval.bundle import MANIFEST
from recsys.retrieval.categories import Categories
from recsys.retrieval.changes import Changes
from recsys.retrieval.exact import ExactBackend
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live_saving import amend_live, load_live

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")


def files_of(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def file_of(folder: Path, what: str) -> Path:
    (found,) = folder.glob(f"{what}-*.safetensors")
    return found


def saved(folder: Path, kind: str = "exact", metric: str = "inner_product") -> ItemIndex:
    vectors = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="model-a", vocabulary="ids-a")
    index.save(folder)
    return index


def saved_with_everything(folder: Path) -> None:
    categories = Categories.of_items([[0], [0, 1], []], 2)
    index = ItemIndex.build(
        np.eye(3)[:, :2],
        kind="exact",
        fingerprint="model-a",
        categories=categories,
        extra={"memory": torch.ones(2)},
    )
    # Parts, as an approximate kind has; an exact one opens without looking at them.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExactBackend, "parts", lambda _: {"links": torch.arange(3)})
        index.save(folder)


def changed(folder: Path) -> None:
    live, state = load_live(folder)
    live.update(add=([3], np.ones((1, 2))), remove=[2])
    amend_live(folder, state, live.changes(("new",)))


@pytest.mark.parametrize("metric", ["inner_product", "l2", "cosine"])
def test_a_loaded_index_answers_bit_for_bit_like_the_saved_one(tmp_path: Path, metric: str) -> None:
    index = saved(tmp_path / "index", metric=metric)
    loaded = ItemIndex.load(tmp_path / "index", "model-a")
    queries = np.random.default_rng(1).standard_normal((5, 2))
    for got, want in zip(loaded.search(queries, 4), index.search(queries, 4), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (loaded.kind, loaded.metric, loaded.fingerprint) == ("exact", metric, "model-a")


def test_any_flipped_byte_of_any_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    saved_with_everything(folder)
    changed(folder)
    assert len(files_of(folder)) == 7
    for name in files_of(folder):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            for mask in (0x01, 0x20, 0x80):
                damaged = bytearray(whole)
                damaged[place] ^= mask
                (folder / name).write_bytes(damaged)
                with pytest.raises(RetrievalError, match=name):
                    load_live(folder)
        (folder / name).write_bytes(whole)
    assert load_live(folder)[0].snapshot().ids.tolist() == [0, 1, 3]


def test_any_truncation_and_any_addition_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    saved_with_everything(folder)
    assert ItemIndex.load(folder).search(np.eye(2), 3, category=1).ids.tolist() == [[1, -1, -1]] * 2
    changed(folder)
    for name in files_of(folder):
        whole = (folder / name).read_bytes()
        for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\n", whole + b"\0"]:
            (folder / name).write_bytes(damaged)
            with pytest.raises(RetrievalError, match=name):
                load_live(folder)
        (folder / name).write_bytes(whole)
    assert load_live(folder)[0].search(np.eye(2), 3).ids.tolist() == [[0, 3, 1], [1, 3, 0]]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="holds no item index; build the index again"):
        ItemIndex.load(tmp_path / "nowhere")
    saved(tmp_path / "index")
    file_of(tmp_path / "index", "vectors").unlink()
    with pytest.raises(RetrievalError, match=r"vectors-\w+.safetensors: not found"):
        ItemIndex.load(tmp_path / "index")


def test_vectors_of_another_save_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    ItemIndex.build(np.eye(3)[:, :2], kind="exact", fingerprint="model-b").save(tmp_path / "b")
    file_of(tmp_path / "a", "vectors").write_bytes(file_of(tmp_path / "b", "vectors").read_bytes())
    with pytest.raises(RetrievalError, match="sha256"):
        ItemIndex.load(tmp_path / "a")


def test_another_models_fingerprint_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "index")
    with pytest.raises(RetrievalError, match=r"made by another model .*build the index again"):
        ItemIndex.load(tmp_path / "index", "model-b")


def test_saving_again_replaces_the_index_and_leaves_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path / "index")
    ItemIndex.build(np.eye(5), kind="exact", fingerprint="model-b").save(tmp_path / "index")
    assert ItemIndex.load(tmp_path / "index", "model-b").n_items == 5
    assert files_of(tmp_path) == ["index"]
    assert len(files_of(tmp_path / "index")) == 3


def test_another_catalog_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "index")
    assert ItemIndex.load(tmp_path / "index", vocabulary="ids-a").vocabulary == "ids-a"
    with pytest.raises(RetrievalError, match="made by another catalog"):
        ItemIndex.load(tmp_path / "index", vocabulary="ids-b")


def test_saving_over_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RetrievalError, match="not an item index"):
        saved(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_save_keeps_the_index_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "index")
    for step in ("_encode", "settle", "sha256_of"):

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(f"recsys.retrieval.bundle.{step}", fail)
            with pytest.raises(RetrievalError, match="the disk is full"):
                ItemIndex.build(np.eye(5), kind="exact", fingerprint="model-b").save(tmp_path / "index")
        assert ItemIndex.load(tmp_path / "index", "model-a").n_items == 3
        assert files_of(tmp_path) == ["index"]
        assert not [name for name in files_of(tmp_path / "index") if name.startswith(".new")]


def test_the_same_index_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    for name in files_of(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_automatic_index_is_recorded_as_automatic(tmp_path: Path) -> None:
    saved(tmp_path / "index", kind="auto")
    assert ItemIndex.load(tmp_path / "index").asked_kind == "auto"
    assert ItemIndex.load(tmp_path / "index", kind="exact").kind == "exact"


def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "index")
    record = json.loads((tmp_path / "index" / MANIFEST).read_bytes())
    del record["sha256"]
    record["files"]["vectors"]["file"] = "../secret.safetensors"
    (tmp_path / "index" / MANIFEST).write_bytes(bundle._encode(record))
    with pytest.raises(RetrievalError, match="damaged"):
        ItemIndex.load(tmp_path / "index")


def test_a_library_that_computes_wrongly_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "index")
    search = ExactBackend.search

    def wrong(self: ExactBackend, *arguments: Any) -> Any:
        scores, ids = search(self, *arguments)
        return scores * 1.01, ids

    monkeypatch.setattr(ExactBackend, "search", wrong)
    with pytest.raises(RetrievalError, match="golden queries"):
        ItemIndex.load(tmp_path / "index")


@needs_faiss
@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "hnsw"])
def test_an_approximate_index_is_opened_without_building_it_anew(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((500, 6)), rng.standard_normal((30, 6))
    options = {"nprobe": 2, "ef_search": 12}
    index = ItemIndex.build(vectors, kind=kind, fingerprint="f", options=options)
    index.save(tmp_path / "index", torch.from_numpy(queries))
    (golden,) = (tmp_path / "index").glob("golden-*")
    from safetensors.torch import load_file

    assert np.isin(load_file(golden)["queries"].numpy(), queries.astype(np.float32)).all()
    monkeypatch.setattr("recsys.retrieval.ivf.train", None)
    loaded = ItemIndex.load(tmp_path / "index")
    assert (loaded.kind, loaded.options.nprobe, loaded.options.ef_search) == (kind, 2, 12)
    np.testing.assert_array_equal(loaded.search(queries, 10).ids, index.search(queries, 10).ids)
    assert ItemIndex.load(tmp_path / "index", kind="flat").exact


@needs_faiss
def test_an_approximate_index_that_finds_too_little_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.retrieval.hnsw import GraphProposer

    vectors = np.random.default_rng(0).standard_normal((500, 6))
    ItemIndex.build(vectors, kind="hnsw", fingerprint="f").save(tmp_path / "index")
    monkeypatch.setattr(
        GraphProposer,
        "find",
        lambda self, queries, count, selector: np.tile(np.arange(count), (len(queries), 1)),
    )
    with pytest.raises(RetrievalError, match="of its golden queries' best items"):
        ItemIndex.load(tmp_path / "index")


KILLED_SAVES = """
import os, signal, sys
from pathlib import Path
import numpy as np
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live_saving import amend_live, load_live

root = Path(sys.argv[1])
old = ItemIndex.build(np.eye(4), kind="exact", fingerprint="old")
new = ItemIndex.build(np.eye(5) * 2, kind="exact", fingerprint="new")
old.save(root / "seed")
new.save(root / "warm")  # compiles and imports everything that the children need
point, fsync = 0, os.fsync

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

counting, os.fsync = False, slow_sync
sys.addaudithook(audit)
for start in ("old", "none"):
    for number in range(1, 200):
        target = root / f"{start}-{number}"
        point = 10**9
        if start == "old":
            old.save(target)
        child = os.fork()
        if child == 0:
            point, counting = number, True
            new.save(target)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(start, number, os.WIFSIGNALED(status), flush=True)
        if not os.WIFSIGNALED(status):
            break
"""


def test_a_save_killed_at_any_step_leaves_the_old_index_or_the_new(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_SAVES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert run.returncode == 0, run.stderr
    steps = [line.split() for line in run.stdout.splitlines()]
    seen: dict[str, list[str]] = {"old": [], "none": []}
    for start, number, killed in steps:
        folder = tmp_path / f"{start}-{number}"
        if start == "none" and not bundle.bundle_exists(folder):
            seen[start].append("none")
        else:
            index = ItemIndex.load(folder)
            assert index.n_items == {"old": 4, "new": 5}[index.fingerprint]
            seen[start].append(index.fingerprint)
        assert killed == "True" or seen[start][-1] == "new"
        # What a killed save left behind is swept by the next one.
        ItemIndex.build(np.eye(3), kind="exact", fingerprint="next").save(folder)
        assert ItemIndex.load(folder).fingerprint == "next"
        assert len(files_of(folder)) == 3
    for start in ("old", "none"):
        assert seen[start].count(start) > 15
        assert seen[start].count("new") > 3
        assert seen[start] == sorted(seen[start], key=["none", "old", "new"].index)


KILLED_CHANGES = (
    KILLED_SAVES[: KILLED_SAVES.index("old = ")]
    + """
from recsys.retrieval.live_saving import amend_live, load_live, save_live

index = ItemIndex.build(np.eye(4), kind="exact", fingerprint="f")
index.save(root / "warm")
"""
    + KILLED_SAVES[KILLED_SAVES.index("point, fsync") : KILLED_SAVES.index("for start in")]
    + """
for start in ("built", "changed"):
    for number in range(1, 200):
        target = root / f"{start}-{number}"
        point = 10**9
        index.save(target)
        live, state = load_live(target)
        if start == "changed":
            live.update(remove=[1])
            state = amend_live(target, state, live.changes())
        live.update(add=([4, 0], np.ones((2, 4))), remove=[2])
        child = os.fork()
        if child == 0:
            point, counting = number, True
            amend_live(target, state, live.changes())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(start, number, os.WIFSIGNALED(status), flush=True)
        if not os.WIFSIGNALED(status):
            break
"""
)


def test_a_change_killed_at_any_step_leaves_the_old_catalog_or_the_new(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_CHANGES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert run.returncode == 0, run.stderr
    old = {"built": [0, 1, 2, 3], "changed": [0, 2, 3]}
    new = {"built": [0, 1, 3, 4], "changed": [0, 3, 4]}
    seen: dict[str, list[str]] = {"built": [], "changed": []}
    for start, number, killed in (line.split() for line in run.stdout.splitlines()):
        folder = tmp_path / f"{start}-{number}"
        live, state = load_live(folder, "f")
        version = live.snapshot()
        ids = version.ids.tolist()
        assert ids in (old[start], new[start])
        first = version.vectors(np.array([0]))[0].tolist()
        assert first == ([1, 0, 0, 0] if ids == old[start] else [1, 1, 1, 1])
        seen[start].append("old" if ids == old[start] else "new")
        assert killed == "True" or seen[start][-1] == "new"
        # What a killed change left behind is swept by the next one.
        live.update(remove=[3])
        amend_live(folder, state, live.changes())
        assert 3 not in load_live(folder)[0].snapshot().ids
        assert len(files_of(folder)) == 4
    for found in seen.values():
        assert found.count("old") > 8
        assert found.count("new") > 3
        assert found == sorted(found, key=["old", "new"].index)


def test_an_index_with_changes_is_not_opened_as_if_it_had_none(tmp_path: Path) -> None:
    saved(tmp_path / "index")
    changed(tmp_path / "index")
    with pytest.raises(RetrievalError, match="items came or went"):
        ItemIndex.load(tmp_path / "index")
    live, state = load_live(tmp_path / "index", kind="exact")
    with pytest.raises(RetrievalError, match="another process changed"):
        amend_live(tmp_path / "index", "0" * 64, live.changes())
    live.update(add=([2], live.first.vectors[2:].numpy()), remove=[3])
    live.rebuild()
    assert len(live.changes()) == 0
    amend_live(tmp_path / "index", state, live.changes())
    assert ItemIndex.load(tmp_path / "index").n_items == 3
    with pytest.raises(RetrievalError, match="holds no item index"):
        amend_live(tmp_path / "none", state, live.changes())
    ItemIndex.build(np.eye(3)[:, :2], kind="exact", fingerprint="b").save(tmp_path / "index")
    with pytest.raises(RetrievalError, match="another process changed"):
        amend_live(tmp_path / "index", state, live.changes())


@pytest.mark.parametrize(
    "change",
    [
        {"gone": np.array([3])},
        {"gone": np.array([1, 1])},
        {"gone": np.array([-1])},
        {"gone": np.array([0, 1, 2]), "ids": np.zeros(0, np.int64), "vectors": np.zeros((0, 2))},
        {"ids": np.array([1])},
        {"ids": np.array([-1])},
        {"vectors": np.zeros((1, 3))},
        {"vectors": np.full((1, 2), np.nan)},
        {"vectors": np.zeros((2, 2))},
    ],
)
def test_changes_that_do_not_fit_their_index_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path / "index")
    _, state = load_live(tmp_path / "index")
    sound = {"gone": np.array([2]), "ids": np.array([3]), "vectors": np.zeros((1, 2))}
    changes = Changes(**sound | change)
    amend_live(tmp_path / "index", state, changes)
    with pytest.raises(RetrievalError, match="do not fit their index"):
        load_live(tmp_path / "index")
    with pytest.raises(RetrievalError, match="do not fit"):
        Changes.from_tensors({"gone": torch.zeros(1)}, 3, 2)


def test_a_reader_meets_one_index_while_another_process_saves(tmp_path: Path) -> None:
    indexes = [ItemIndex.build(np.eye(n), kind="exact", fingerprint=str(n)) for n in (3, 4)]
    indexes[0].save(tmp_path / "index")
    done = threading.Event()

    def write() -> None:
        for turn in range(40):
            indexes[turn % 2].save(tmp_path / "index")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or reads == 0:
        index = ItemIndex.load(tmp_path / "index")
        assert index.fingerprint == str(index.n_items)
        reads += 1
    writer.join()


def test_a_reader_goes_on_where_the_index_of_before_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest says the same as the one that was read, and yet its files were gone for a while."""
    indexes = [ItemIndex.build(np.eye(n), kind="exact", fingerprint=str(n)) for n in (3, 4)]
    indexes[0].save(tmp_path / "index")
    read_file = bundle._read_file
    missed: list[Path] = []

    def read(file: Path, entry: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if not missed:
            missed.append(file)
            indexes[1].save(tmp_path / "index")
            assert not file.exists()
            indexes[0].save(tmp_path / "index")
            raise FileNotFoundError(2, "No such file", str(file))
        return read_file(file, entry)

    monkeypatch.setattr(bundle, "_read_file", read)
    assert ItemIndex.load(tmp_path / "index").n_items == 3
    assert missed


def test_a_missing_file_of_an_index_that_stands_is_said(tmp_path: Path) -> None:
    ItemIndex.build(np.eye(3), kind="exact", fingerprint="model-a").save(tmp_path / "index")
    (lost,) = (tmp_path / "index").glob("vectors-*")
    lost.unlink()
    with pytest.raises(RetrievalError, match=f"{lost.name}: not found; build the index again"):
        ItemIndex.load(tmp_path / "index")
