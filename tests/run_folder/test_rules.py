"""What may be done with a folder, said by one case each; `test_histories` mixes them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, ConfigError, DataError, NotFittedError, RunError
from recsys.files import lock_on
from recsys.run_folder import RunFolder, fingerprint
from recsys.run_folder import model as run_model

TINY: dict[str, Any] = {"d_model": 8, "n_layers": 1, "d_ff": 8, "max_length": 8}


def _model(epochs: int = 1, name: str = "sasrec", **training: Any) -> Recommender:
    options = {"epochs": epochs, "batch_events": 256, "amp": False, **training}
    encoder = TINY if name != "mamba" else {k: v for k, v in TINY.items() if k != "d_ff"}
    return Recommender(name, encoder_options=encoder, training_options=options, index="exact")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def trained(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("trained") / "run"
    _model().fit(log, out=out)
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", str(trained), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.toml", 'title = "my site"'), ("run.json", '{"name": "theirs"}'), ("notes.txt", "mine")],
)
def test_a_folder_that_is_no_run_is_refused_whatever_is_asked(
    log: pl.DataFrame, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / name).write_text(text)
    for options in ({}, {"overwrite": True}, {"resume": True}, {"resume": True, "overwrite": True}):
        with pytest.raises(RunError, match="is not a run; choose an empty folder"):
            _model().fit(log, out=tmp_path / "theirs", **options)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="is not a run"):
        _model().fit(log).save(tmp_path / "theirs", overwrite=True)
    assert _contents(tmp_path) == {f"theirs/{name}": text.encode()}


@pytest.mark.parametrize("place", ["notes.txt", "data/notes.txt", "plots/mine.png", "checkpoint/old/x"])
def test_a_run_with_anything_else_in_it_is_not_overwritten_but_goes_on(
    log: pl.DataFrame, run: Path, place: str
) -> None:
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).write_text("mine")
    before = _contents(run)
    with pytest.raises(RunError, match=f"{place.removesuffix('/x')} is no part of a run"):
        _model().fit(log, out=run, overwrite=True)
    assert _contents(run) == before
    if place == "notes.txt":
        _model(2).fit(log, out=run, resume=True)
        assert (run / place).read_text() == "mine"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_model(name="mamba"), r"another encoder \('sasrec', not 'mamba'\)"),
        (_model(learning_rate=0.5), r"training.learning_rate = 0.001, not 0.5"),
        (Recommender(seed=3), "training.seed = 0, not 3"),
        (Recommender(preset="paper"), r"another preset \('tuned', not 'paper'\)"),
        (Recommender(encoder_options={"d_model": 16}), "encoder.d_model = 8, not 16"),
        (Recommender(encoder_options={"d_modl": 16}), "did you mean 'd_model'"),
    ],
)
def test_a_refused_resume_changes_no_byte(
    log: pl.DataFrame, run: Path, model: Recommender, message: str
) -> None:
    before = _contents(run.parent)
    with pytest.raises((RunError, ConfigError), match=message):
        model.fit(log, out=run, resume=True)
    assert _contents(run.parent) == before
    with pytest.raises(NotFittedError):
        model.recommend()


def test_a_run_goes_on_by_its_own_settings_and_with_its_own_log_however_named(
    log: pl.DataFrame, run: Path, tmp_path: Path
) -> None:
    log.write_csv(tmp_path / "same.csv")
    recsys.prepare(log, tmp_path / "prepared")
    for epochs, data in enumerate((log, tmp_path / "same.csv", str(tmp_path / "prepared")), 2):
        model = Recommender(training_options={"epochs": epochs}).fit(data, out=run, resume=True)
        assert len(model.history_) == epochs
        assert model.encoder_.config.d_model == 8
    other = log.with_columns(pl.col("item_id") + 1000)
    other.write_csv(tmp_path / "other.csv")
    recsys.prepare(other, tmp_path / "other")
    before = _contents(run)
    for wrong in (other, tmp_path / "other.csv", str(tmp_path / "other")):
        with pytest.raises(ArgumentError, match="other data"):
            Recommender().fit(wrong, out=run, resume=True)
    assert _contents(run) == before


def test_report_index_and_pictures_go_with_their_weights(log: pl.DataFrame, run: Path) -> None:
    model = recsys.load(run)
    model.save_index(run / "index")
    (run / "report.json").write_text("{}")
    # The same model again: they stay.
    recsys.load(run).save(run)
    assert (run / "report.json").exists()
    assert (run / "index" / "manifest.json").exists()
    assert (run / "checkpoint").exists()
    with pytest.raises(RunError, match="replace it with overwrite=True, or choose another folder"):
        _model(2, learning_rate=0.01).fit(log).save(run)
    other = _model(2, learning_rate=0.01).fit(log)
    other.save(run, overwrite=True)
    assert not (run / "report.json").exists()
    assert not (run / "index").exists()
    answers = recsys.load(run).recommend([3], k=5), other.recommend([3], k=5)
    assert answers[0]["item_id"].to_list() == answers[1]["item_id"].to_list()


def test_a_model_whose_data_were_replaced_is_not_saved_with_those_of_another(
    log: pl.DataFrame, run: Path, tmp_path: Path
) -> None:
    model = recsys.load(run)
    _model().fit(log.with_columns(pl.col("item_id") + 7), out=run, overwrite=True)
    with pytest.raises(DataError, match="was replaced or removed since this dataset was opened"):
        model.save(tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_index_is_not_put_into_another_run(log: pl.DataFrame, run: Path) -> None:
    before = _contents(run)
    with pytest.raises(RunError, match="is the place of another run's index"):
        _model(2, learning_rate=0.01).fit(log).save_index(run / "index")
    assert _contents(run) == before


def test_scores_are_overwritten_and_nothing_else(run: Path, tmp_path: Path) -> None:
    model, out = recsys.load(run), tmp_path / "parts"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "scoring.json").write_text('{"goals": 3}')
    with pytest.raises(RunError, match="holds something that is not a scoring"):
        model.score(tmp_path / "theirs", overwrite=True)
    model.score(out, k=2)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds 'notes.txt' besides the parts"):
        model.score(out, k=3, overwrite=True)
    (out / "notes.txt").unlink()
    model.score(out, k=3, overwrite=True)
    assert pl.read_parquet(out / "part-00000-of-00001.parquet")["rank"].max() == 3


def test_a_failed_fit_leaves_the_old_one(log: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model().fit(log)
    before = model.recommend([3], k=5)
    short = pl.DataFrame({"user_id": [1, 2], "item_id": [5, 6], "timestamp": [1, 2]})
    with pytest.raises(DataError, match="no user has two training events"):
        model.fit(short)
    assert model.recommend([3], k=5).equals(before)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.training.trainer.Trainer._run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(log.with_columns(pl.col("item_id") + 7))
    assert model.recommend([3], k=5).equals(before)


def test_a_stop_in_the_first_minute_goes_on(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("recsys.training.trainer.Trainer._run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _model(2).fit(log, out=tmp_path / "run")
    with pytest.raises(RunError, match="holds an unfinished run; go on with resume=True"):
        _model(2).fit(log, out=tmp_path / "run")
    resumed = _model(2).fit(log, out=tmp_path / "run", resume=True)
    whole = _model(2).fit(log)
    for name, value in whole.encoder_.state_dict().items():
        assert torch.equal(value, resumed.encoder_.state_dict()[name])


def test_a_replacement_that_was_cut_short_goes_on_with_both(
    log: pl.DataFrame, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = _contents(run)
    with monkeypatch.context() as patched:
        patched.setattr("recsys.training.trainer.Trainer._run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _model(2, "mamba").fit(log, out=run, overwrite=True)
    assert _contents(run) == before
    said: list[str] = []
    _model().fit(log, out=run, resume=True, notify=said.append)
    assert "goes on with resume and overwrite together" in said[0]
    assert _contents(run) == before
    _model(2, "mamba").fit(log, out=run, resume=True, overwrite=True)
    assert recsys.load(run).encoder == "mamba"
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_what_a_killed_exchange_left_of_an_index_does_not_come_along(
    log: pl.DataFrame, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recsys.load(run).save_index(run / "index")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("recsys.run_folder.writing._exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _model(2).fit(log, out=run, resume=True)
    resuming = run.parent / ".run.resuming"
    (resuming / "index").mkdir(exist_ok=True)
    (resuming / "index" / "manifest.json").write_text("half of one")
    (resuming / "report.json").write_text("of other weights")
    _model(3).fit(log, out=run, resume=True)
    assert not (run / "report.json").exists()
    assert recsys.load(run).recommend([3], k=2)["rank"].to_list() == [1, 2]


def test_a_refused_start_leaves_nothing(log: pl.DataFrame, tmp_path: Path) -> None:
    short = log.group_by("user_id").head(3)
    clock = Recommender(encoder_options={**TINY, "clock": "pool"})
    for model, data in ((_model(), short), (clock, log), (Recommender("sasrec", backend="x"), log)):
        with pytest.raises((DataError, ConfigError, ArgumentError)) as caught:
            model.fit(data, out=tmp_path / "deep" / "run")
        assert ".starting" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_the_data_of_a_run_that_replaces_itself_survive(run: Path, log: pl.DataFrame) -> None:
    _model(1, learning_rate=0.01).fit(run / "data", out=run, overwrite=True)
    assert recsys.load(run).store_.n_events == len(log)


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_that_was_replaced_by_its_like_is_read_again(run: Path, fails: bool) -> None:
    """Its ``run.json`` says what it said before, and yet files of another run may have lain there."""
    turns = []

    def read(folder: RunFolder, manifest: run_model.Manifest) -> int:
        turns.append(manifest)
        if len(turns) == 1:
            shutil.copy(folder.manifest, run / "again.json")
            os.replace(run / "again.json", folder.manifest)
            if fails:
                raise RunError("a file of the other run")
        return len(turns)

    assert run_model.steadily(RunFolder(run), read) == (turns[0], 2)
    assert turns[0] == turns[1]


def test_the_second_writer_is_refused(log: pl.DataFrame, run: Path) -> None:
    model = recsys.load(run)
    with lock_on(RunFolder(run).beside("lock").path, wait=False):
        for write in (
            lambda: _model().fit(log, out=run, overwrite=True),
            lambda: _model().fit(log, out=run, resume=True),
            lambda: model.save(run),
        ):
            with pytest.raises(RunError, match="another process is writing this run"):
                write()
    assert not RunFolder(run).beside("lock").path.exists()


def test_files_have_the_mode_that_the_umask_gives(run: Path) -> None:
    before = os.umask(0o027)
    try:
        recsys.load(run).save_index(run / "index")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (run / "index").iterdir()}
    assert modes == {0o640}


def test_a_library_s_full_disk_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    model = recsys.load(run)
    before = _contents(run.parent)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match="the disk is full; free some space and run again"):
        model.save(run)
    assert _contents(run.parent) == before


def test_home_and_relative_paths_mean_one_place(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    fitted = _model().fit(log, out="~/run")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    fitted.save("~/copy")
    fitted.save_index("~/copy/index")
    loaded = recsys.load("home/copy")
    fitted.score("~/scored")
    monkeypatch.chdir("/")
    answers = loaded.recommend([3], k=5), recsys.load("~/run").recommend([3], k=5)
    assert answers[0]["item_id"].to_list() == answers[1]["item_id"].to_list()
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"run", "copy", "scored"}
    with pytest.raises(RunError, match="is not a path"):
        fitted.save("")


@pytest.mark.parametrize("loss", ["gbce", "bce", "bpr"])
def test_the_preset_gives_way_to_a_loss_and_options_do_not(log: pl.DataFrame, loss: str) -> None:
    said: list[str] = []
    Recommender(encoder_options=TINY, training_options={"loss": loss, "epochs": 1}).fit(
        log, notify=said.append
    )
    assert any("label smoothing is left out" in line for line in said)
    assert any("repeat bias is left out" in line for line in said)
    with pytest.raises(ConfigError, match="label_smoothing = 0.1 is out of range"):
        Recommender(training_options={"loss": loss, "label_smoothing": 0.1}).fit(log)


def test_a_log_under_another_vocabulary_is_evaluated_by_its_ids(
    log: pl.DataFrame, trained: Path, tmp_path: Path
) -> None:
    model = recsys.load(trained)
    own = model.evaluate()
    text = log.with_columns(pl.col("item_id").cast(pl.String))
    recsys.prepare(text, tmp_path / "text")
    # In text 10 comes before 2: the numbers of the items are others.
    assert model.evaluate(tmp_path / "text").metrics == own.metrics
    part = log.filter(pl.col("item_id") < 20)
    recsys.prepare(part, tmp_path / "part")
    assert np.isfinite(model.evaluate(tmp_path / "part").metrics["ndcg@10"])
    recsys.prepare(log.with_columns(pl.col("item_id") + 5), tmp_path / "shifted")
    with pytest.raises(ArgumentError, match=r"5 of 30 items are not in the model's catalog, such as 30"):
        model.evaluate(tmp_path / "shifted")


@pytest.mark.slow
def test_a_death_at_any_write_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Every 45th write; `python -m tests.run_folder.killing FOLDER` tries all of them."""
    command = [sys.executable, "-m", "tests.run_folder.killing", str(tmp_path / "runs"), "45"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(json.loads(done.stdout.splitlines()[-1].split()[0])) >= 8


def test_the_data_of_a_run_are_not_replaced_by_preparing(run: Path, log: pl.DataFrame) -> None:
    before = _contents(run)
    with pytest.raises(DataError, match="holds the data of the run around it"):
        recsys.prepare(log.head(300), run / "data", overwrite=True)
    assert _contents(run) == before


def test_a_run_with_the_data_of_another_log_does_not_answer(run: Path, log: pl.DataFrame) -> None:
    shutil.move(run / "data", run.parent / "kept")
    recsys.prepare(log.reverse().with_columns(pl.col("timestamp") + 1), run / "data")
    with pytest.raises(RunError, match="is not the data that this run was trained on; put these back"):
        recsys.load(run)
    shutil.rmtree(run / "data")
    shutil.move(run.parent / "kept", run / "data")
    assert len(recsys.load(run).recommend(k=1)) > 0


def test_scores_do_not_take_the_place_of_a_part_of_a_run(run: Path) -> None:
    model, before = recsys.load(run), _contents(run)
    for name in ("index", "data", "checkpoint"):
        with pytest.raises(RunError, match="is the place of a part of the run; choose another folder"):
            model.score(run / name, k=1)
    assert _contents(run) == before
    assert model.score(run / "scores", k=1).rows > 0


@pytest.mark.parametrize("between", ["read_settings", "item_inputs", "build_encoder"])
def test_a_reader_gets_one_run_though_another_takes_its_place(
    log: pl.DataFrame, tmp_path: Path, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, settings and features of items are of one run, whenever the folders are exchanged."""
    ids = log["item_id"].unique().sort()
    runs = []
    for name, width in (("run", 3), ("other", 5)):
        vectors = np.random.default_rng(width).normal(size=(len(ids), width))
        recsys.prepare(log, tmp_path / f"{name}-data", items={"item_id": ids}, item_vectors=vectors)
        options = {**TINY, "item_parts": "id+features"}
        model = Recommender(encoder_options=options, training_options={"epochs": 1, "batch_events": 512})
        model.fit(tmp_path / f"{name}-data", out=tmp_path / name)
        runs.append(model)
    begun: list[int] = []
    real = getattr(run_model, between)

    def exchanged(*arguments: Any, **options: Any) -> Any:
        if not begun:
            begun.append(1)
            for source, target in (("run", "aside"), ("other", "run"), ("aside", "other")):
                (tmp_path / source).rename(tmp_path / target)
        return real(*arguments, **options)

    monkeypatch.setattr(run_model, between, exchanged)
    loaded = recsys.load(tmp_path / "run")
    assert begun
    assert fingerprint(loaded.encoder_) == fingerprint(runs[1].encoder_)
    assert loaded.store_.fingerprint == runs[1].store_.fingerprint
    # What stays damaged is said to be.
    (tmp_path / "run" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(RunError, match=r"model.safetensors: missing or damaged"):
        recsys.load(tmp_path / "run")
