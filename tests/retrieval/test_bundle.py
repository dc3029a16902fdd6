from pathlib import Path

import numpy as np
import pytest

from recsys.errors import RetrievalError
from recsys.retrieval.bundle import MANIFEST, VECTORS
from recsys.retrieval.item_index import ItemIndex


def saved(folder: Path, kind: str = "exact", metric: str = "inner_product") -> ItemIndex:
    vectors = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    index = ItemIndex.build(vectors, kind=kind, metric=metric, fingerprint="model-a")
    index.save(folder)
    return index


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
    saved(folder)
    for name in (MANIFEST, VECTORS):
        whole = (folder / name).read_bytes()
        for place in range(len(whole)):
            for mask in (0x01, 0x20, 0x80):
                damaged = bytearray(whole)
                damaged[place] ^= mask
                (folder / name).write_bytes(damaged)
                with pytest.raises(RetrievalError, match=name):
                    ItemIndex.load(folder)
        (folder / name).write_bytes(whole)
    assert ItemIndex.load(folder).n_items == 3


def test_any_truncation_and_any_addition_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    saved(folder)
    for name in (MANIFEST, VECTORS):
        whole = (folder / name).read_bytes()
        for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\n", whole + b"\0"]:
            (folder / name).write_bytes(damaged)
            with pytest.raises(RetrievalError, match=name):
                ItemIndex.load(folder)
        (folder / name).write_bytes(whole)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="holds no item index; build the index again"):
        ItemIndex.load(tmp_path / "nowhere")
    saved(tmp_path / "index")
    (tmp_path / "index" / VECTORS).unlink()
    with pytest.raises(RetrievalError, match=VECTORS):
        ItemIndex.load(tmp_path / "index")


def test_vectors_of_another_save_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    ItemIndex.build(np.eye(3)[:, :2], kind="exact", fingerprint="model-b").save(tmp_path / "b")
    (tmp_path / "a" / VECTORS).write_bytes((tmp_path / "b" / VECTORS).read_bytes())
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
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_saving_over_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RetrievalError, match="not an item index"):
        saved(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_save_keeps_the_index_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "index")
    for step in ("_encode", "_sync", "sha256_of"):

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(f"recsys.retrieval.bundle.{step}", fail)
            with pytest.raises(RetrievalError, match="No space left"):
                ItemIndex.build(np.eye(5), kind="exact", fingerprint="model-b").save(tmp_path / "index")
        assert ItemIndex.load(tmp_path / "index", "model-a").n_items == 3
        assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_the_same_index_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    for name in (MANIFEST, VECTORS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_automatic_index_is_recorded_as_automatic(tmp_path: Path) -> None:
    saved(tmp_path / "index", kind="auto")
    assert ItemIndex.load(tmp_path / "index").asked_kind == "auto"
    assert ItemIndex.load(tmp_path / "index", kind="exact").kind == "exact"
