import errno
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys import Recommender
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.devices import choose_device
from recsys.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    RecsysError,
    RetrievalError,
    RunError,
    UnknownIdError,
)

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}
QUICK: dict[str, Any] = {"epochs": 2, "batch_events": 256}


def _make(name: str = "sasrec", **options: Any) -> Recommender:
    return Recommender(name, encoder_options=SMALL, training_options=QUICK, index="exact", **options)


@pytest.fixture(scope="module")
def model(store: SequenceStore) -> Recommender:
    return _make().fit(store)


def _replace(path: Path) -> None:
    # The run's data are hard links: write beside them, not into them.
    path.unlink()
    path.write_bytes(b"x")


def _seen(log: pl.DataFrame, user: int) -> set[int]:
    return set(log.filter(pl.col("user_id") == user)["item_id"].to_list())


def test_fit_returns_self_and_the_constructor_only_stores() -> None:
    model = _make(seed=3)
    assert (model.encoder, model.seed, model.encoder_options) == ("sasrec", 3, SMALL)
    assert not hasattr(model, "encoder_")
    with pytest.raises(RecsysError, match="not fitted"):
        model.recommend(histories=[[1]])


def test_known_users_get_k_unseen_items_in_order(model: Recommender, log: pl.DataFrame) -> None:
    frame = model.recommend(users=[3, 7], k=4)
    assert frame.columns == ["user_id", "item_id", "score", "rank", "source"]
    assert frame["user_id"].to_list() == [3] * 4 + [7] * 4
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 2
    for user in (3, 7):
        own = frame.filter(pl.col("user_id") == user)
        assert own["score"].is_sorted(descending=True)
        assert not set(own["item_id"].to_list()) & _seen(log, user)


def test_exactly_k_answers_whenever_k_exist(model: Recommender, log: pl.DataFrame) -> None:
    n_items = log["item_id"].n_unique()
    frame = model.recommend(users=[3], k=1000)
    assert len(frame) == n_items - len(_seen(log, 3))
    assert len(model.recommend(users=[3], k=1000, exclude_seen=False)) == n_items


def test_a_history_gets_what_its_user_gets(model: Recommender, log: pl.DataFrame) -> None:
    history = log.filter(pl.col("user_id") == 5)["item_id"].to_list()
    by_user = model.recommend(users=[5], k=5)
    by_history = model.recommend(histories=[history], k=5)
    assert by_user["item_id"].to_list() == by_history["item_id"].to_list()
    assert by_history["user_id"].to_list() == [0] * 5


def test_all_users_are_answered_when_none_are_named(model: Recommender, log: pl.DataFrame) -> None:
    frame = model.recommend(k=1)
    assert frame["user_id"].to_list() == sorted(log["user_id"].unique().to_list())


def test_filters_hold(model: Recommender) -> None:
    frame = model.recommend(histories=[[1, 2, 3]], k=5, allow=[3, 4, 5, 6], deny=[5])
    assert set(frame["item_id"].to_list()) == {4, 6}
    assert 3 in model.recommend(histories=[[1, 2, 3]], k=5, allow=[3], exclude_seen=False)["item_id"]


def test_the_array_form_agrees_with_the_frame(model: Recommender) -> None:
    ids, scores = model.recommend_arrays(histories=[[1, 2], [3]], k=3)
    frame = model.recommend(histories=[[1, 2], [3]], k=3)
    assert ids.flatten().tolist() == frame["item_id"].to_list()
    np.testing.assert_array_equal(scores.flatten(), frame["score"].to_numpy())
    ids, scores = model.recommend_arrays(histories=[[1, 2]], k=3, allow=[7])
    assert ids.tolist() == [[7, None, None]]
    assert scores[0, 1] == -np.inf


def test_unknown_ids_are_raised_warned_of_or_ignored(model: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="unknown item 999: not in the training log"):
        model.recommend(histories=[[1, 999]])
    with pytest.raises(UnknownIdError, match="unknown user 999"):
        model.recommend(users=[999])
    with pytest.warns(UserWarning, match="unknown item 999 left out"):
        warned = model.recommend(histories=[[1, 999]], on_unknown="warn")
    assert warned.equals(model.recommend(histories=[[1]]))
    assert model.recommend(users=[999, 3], k=2, on_unknown="ignore")["user_id"].to_list() == [3, 3]
    with pytest.raises(ArgumentError, match="on_unknown = 'skip'"):
        model.recommend(histories=[[1]], on_unknown="skip")  # type: ignore[arg-type]


def test_a_request_without_known_items_gets_the_most_popular(
    model: Recommender, store: SequenceStore
) -> None:
    with pytest.warns(UserWarning, match="most popular"):
        frame = model.recommend(histories=[[], [1, 2]], k=3, deny=[0])
    counts = store.item_counts()
    order = [i for i in np.lexsort((np.arange(len(counts)), -counts)) if i != 0]
    names = model._names.items.decode(np.array(order[:3])).to_list()
    assert frame.filter(pl.col("user_id") == 0)["item_id"].to_list() == names
    assert len(frame) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": [1], "histories": [[1]]}, "users or histories, not both"),
        ({"histories": [[1]], "k": 0}, "k = 0 must be at least 1"),
        ({"histories": "1,2"}, "must be a list of lists"),
        ({"histories": ["12"]}, "not the single string '12'"),
        ({"users": "3"}, "not the single string '3'"),
        ({"histories": [[1]], "allow": "3"}, "allow must be a list"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(
    model: Recommender, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.recommend(**arguments)


@pytest.fixture(scope="module", params=["sasrec", "bert4rec"])
def timed(request: pytest.FixtureRequest, store: SequenceStore) -> Recommender:
    """A model that reads times, with a table that makes them matter."""
    options = {**SMALL, "time_bias": 100}
    model = Recommender(request.param, encoder_options=options, training_options=QUICK, index="exact")
    model.fit(store)
    with torch.no_grad():
        for name, parameter in model.encoder_.named_parameters():
            if ".tables." in name:
                parameter.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    return model


def test_times_reach_the_model_by_user_and_by_history(timed: Recommender, log: pl.DataFrame) -> None:
    own = log.filter(pl.col("user_id") == 5).sort("timestamp")
    history, times = own["item_id"].to_list(), own["timestamp"].to_list()
    by_user = timed.recommend(users=[5], k=5)["score"].to_numpy()
    by_history = timed.recommend(histories=[history], times=[times], k=5)["score"].to_numpy()
    np.testing.assert_allclose(by_user, by_history, rtol=1e-5)
    others = [t // 50 for t in times]
    assert not np.allclose(
        by_user, timed.recommend(histories=[history], times=[others], k=5)["score"].to_numpy(), rtol=1e-3
    )


def test_an_unknown_item_takes_its_time_with_it(timed: Recommender) -> None:
    found = timed.recommend(histories=[[1, 999, 2]], times=[[10, 20, 90_000]], on_unknown="ignore")
    assert found.equals(timed.recommend(histories=[[1, 2]], times=[[10, 90_000]]))


def test_times_reach_the_model_in_evaluation(timed: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    before = timed.evaluate().metrics
    assert timed.store_.timestamps is not None
    rng = np.random.default_rng(0)
    other = np.sort(rng.integers(0, 10**9, timed.store_.n_events))
    monkeypatch.setattr(timed.store_, "timestamps", other)
    assert timed.evaluate().metrics != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"histories": [[1, 2]]}, r"reads the time of every event: pass times= with"),
        ({"histories": [[1, 2]], "times": [[1]]}, "history 0 has 2 items and 1 times"),
        ({"histories": [[1], [2]], "times": [[1]]}, "one for each history"),
        ({"histories": [[1, 2]], "times": [[5, 4]]}, "times of history 0 go back to 4"),
        ({"histories": [[1, 2]], "times": [[5, "6"]]}, "times of history 0 hold '6'"),
        ({"histories": [[1, 2]], "times": [[5, 2**70]]}, "times of history 0 hold 1180591620717411303424"),
        ({"users": [3], "times": [[5]]}, "times go with histories"),
    ],
)
def test_times_that_cannot_be_meant_are_refused(
    timed: Recommender, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        timed.recommend(**arguments)
    assert "\n" not in str(caught.value)


def test_similar_items_are_nearest_by_cosine(model: Recommender) -> None:
    frame = model.similar_items([4], k=3)
    weight = torch.nn.functional.normalize(model.encoder_.item_weight.detach(), dim=1)
    row = int(model._names.items.encode([4])[0])
    scores = weight @ weight[row]
    scores[row] = -2
    best = model._names.items.decode(scores.topk(3).indices.numpy()).to_list()
    assert frame["similar_item_id"].to_list() == best
    assert frame["item_id"].to_list() == [4, 4, 4]
    np.testing.assert_allclose(frame["score"].to_numpy(), scores.topk(3).values.numpy(), atol=1e-5)


def test_evaluation_counts_every_user_once(model: Recommender, store: SequenceStore) -> None:
    result = model.evaluate()
    assert result.users == int((store.offsets[1:] > store.test_start).sum())
    assert 0 <= result.metrics["ndcg@10"] <= result.metrics["hr@10"] <= 1
    assert model.evaluate(split="valid").metrics != result.metrics
    other = model.evaluate(protocol="recbole").protocol
    assert other != result.protocol


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_a_saved_model_answers_the_same(name: str, store: SequenceStore, tmp_path: Path) -> None:
    model = _make(name).fit(store)
    model.build_index()
    model.save(tmp_path / "run")
    loaded = recsys.load(tmp_path / "run", index="exact")
    assert loaded.recommend(users=[3, 7]).equals(model.recommend(users=[3, 7]))
    assert loaded.evaluate().metrics == model.evaluate().metrics
    assert loaded.configs() == model.configs(model.store_)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
@pytest.mark.parametrize("loss", ["full", "sampled_softmax", "gbce"])
def test_hashed_items_train_rank_answer_and_are_saved(
    name: str, loss: str, store: SequenceStore, tmp_path: Path
) -> None:
    model = Recommender(
        name,
        encoder_options={**SMALL, "item_hashes": 2, "item_buckets": 20},
        training_options={**QUICK, "loss": loss, "label_smoothing": 0.0},
        index="exact",
    ).fit(store)
    table = model.encoder_.get_parameter("item_embedding.weight")
    assert table.shape[0] == 20 + model.encoder_.n_extra_items < store.n_items
    frame = model.recommend(users=[3, 7], k=4)
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 2
    weight = model.encoder_.item_vectors()
    torch.testing.assert_close(model.index_.vectors, weight)
    metrics = model.evaluate().metrics
    model.save(tmp_path / "run")
    again = recsys.load(tmp_path / "run")
    assert torch.equal(again.encoder_.item_vectors(), weight)
    assert again.evaluate().metrics == metrics
    assert again.recommend(users=[3, 7], k=4).equals(frame)


@pytest.mark.parametrize(
    ("name", "loss"), [("sasrec", "full"), ("bert4rec", "full"), ("mamba", "full"), ("sasrec", "gbce")]
)
def test_the_plain_pytorch_kernels_train_and_rank_alike(
    name: str, loss: str, store: SequenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, plain = (
        Recommender(
            name,
            encoder_options=SMALL,
            training_options={**QUICK, "loss": loss, "label_smoothing": 0.0},
            index="exact",
            backend=backend,
        )
        for backend in ("auto", "reference")
    )
    compiled.fit(store)
    kernels = ["attention.cpu", "scan.cpu", "conv.cpu", "cross_entropy.cpu", "ranking.cpu"]
    kernels += ["embedding.cpu_segments", "lazy_adamw.cpu", "sampled_loss.cpu", "sampling.cpu"]
    with monkeypatch.context() as patch:
        for module in kernels:
            patch.setattr(f"recsys.kernels.{module}.launch", None)  # no compiled kernel may run
        plain.fit(store)
        metrics = plain.evaluate().metrics
    losses = [[record["loss"] for record in model.history_] for model in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert metrics == pytest.approx(compiled.evaluate().metrics, abs=0.02)  # one user of 60 is 0.017


def test_fitting_into_a_folder_leaves_a_run_that_answers_alone(log: pl.DataFrame, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = _make().fit(log, out=run)
    names = {p.name for p in run.iterdir()}
    assert {"config.toml", "run.json", "model.safetensors", "data", "metrics.jsonl", "plots"} <= names
    assert (run / "plots" / "training.png").read_bytes()[:4] == b"\x89PNG"
    answer = model.recommend(users=[3])
    moved = run.rename(tmp_path / "elsewhere")
    assert recsys.load(moved, index="exact").recommend(users=[3]).equals(answer)


def test_titles_travel_with_the_run(log: pl.DataFrame, tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv"
    pl.DataFrame({"item_id": range(30), "title": [f"Film {i}" for i in range(30)]}).write_csv(titles)
    recsys.prepare(log, tmp_path / "data", items=titles)
    model = _make().fit(tmp_path / "data", out=tmp_path / "run")
    frame = recsys.load(tmp_path / "run", index="exact").recommend(histories=[[1, 2]], k=2)
    assert frame["title"].to_list() == [f"Film {i}" for i in frame["item_id"]]
    assert "title" in model.similar_items([1]).columns


def test_text_ids_come_back_as_text(log: pl.DataFrame) -> None:
    frame = log.select(
        pl.format("u{}", "user_id").alias("user_id"),
        pl.format("i{}", "item_id").alias("item_id"),
        "timestamp",
    )
    model = _make().fit(frame)
    answer = model.recommend(users=["u3"], k=2)
    assert answer["user_id"].to_list() == ["u3", "u3"]
    assert all(item.startswith("i") for item in answer["item_id"])


def test_validation_during_training_takes_at_most_so_many_users(
    store: SequenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.evaluation.evaluate import evaluate_hidden

    seen: list[Any] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["users"])
        return evaluate_hidden(*args, **kwargs)

    monkeypatch.setattr("recsys.training.validating.evaluate_hidden", spy)
    options = {**QUICK, "validation_users": 10}
    Recommender("sasrec", encoder_options=SMALL, training_options=options).fit(store)
    assert [len(users) for users in seen] == [10, 10]
    assert (seen[0] == seen[1]).all()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda r: (r / "run.json").unlink(), RunError, "training has not finished"),
        (lambda r: (r / "run.json").write_text("{"), RunError, "not valid JSON"),
        (lambda r: (r / "run.json").write_text("{}"), RunError, "damaged"),
        (lambda r: (r / "model.safetensors").write_bytes(b"x"), RunError, "missing or damaged"),
        (lambda r: (r / "model.safetensors").unlink(), RunError, "missing or damaged"),
        (lambda r: (r / "config.toml").write_text("[encoder]\nx = 1\n"), RunError, "unknown key encoder.x"),
        (lambda r: (r / "config.toml").write_text("[encoder]\nd_ff = 9\n"), RunError, "does not fit"),
        (lambda r: _replace(r / "data" / "items.npy"), DataError, "items.npy"),
        (lambda r: (r / "data" / "meta.json").unlink(), DataError, "meta.json"),
        (lambda r: next((r / "index").glob("vectors-*")).write_bytes(b"x"), RetrievalError, "vectors"),
    ],
)
def test_a_damaged_run_is_refused_by_the_file(
    store: SequenceStore, tmp_path: Path, damage: Any, error: type[RecsysError], message: str
) -> None:
    model = _make().fit(store)
    model.build_index()
    model.save(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(error, match=message) as caught:
        recsys.load(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_an_index_of_another_model_is_refused(store: SequenceStore, tmp_path: Path) -> None:
    for seed in (0, 1):
        model = _make(seed=seed).fit(store)
        model.build_index()
        model.save(tmp_path / str(seed))
    (tmp_path / "0" / "index").rename(tmp_path / "0" / "old")
    (tmp_path / "1" / "index").rename(tmp_path / "0" / "index")
    with pytest.raises(RetrievalError, match="another"):
        recsys.load(tmp_path / "0")


def test_a_full_disk_while_saving_is_one_line(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunError, match=r"model.safetensors: the disk is full"):
        model.save(tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_folder_of_other_data_is_refused(log: pl.DataFrame, tmp_path: Path) -> None:
    _make().fit(log, out=tmp_path / "run")
    recsys.prepare(log.filter(pl.col("user_id") < 30), tmp_path / "other")
    with pytest.raises(ArgumentError, match="other data"):
        _make().fit(tmp_path / "other", out=tmp_path / "run", resume=True)


def test_devices_are_chosen_by_name() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ArgumentError, match="is not auto, cpu or cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(ArgumentError, match="torch sees no GPU"):
            choose_device("cuda")


def test_wrong_options_are_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="unknown key encoder.d_modl; did you mean 'd_model'"):
        Recommender("sasrec", encoder_options={"d_modl": 3}).fit("nothing")
