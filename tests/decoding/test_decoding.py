"""From states to items under every choice of vectors, on a small trained model."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys import Recommender, prepare
from recsys.answering.interests import centres_of, interest_states
from recsys.answering.window_answers import with_window
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.synthetic.columns import action_log
from recsys.decoding import building as decoder_building
from recsys.decoding import local_ranking as local_evaluation
from recsys.decoding.datastore import collect_datastore
from recsys.decoding.local_latent import LocalLatent
from recsys.decoding.local_ranking import local_ranks, ranks_by_neighbours
from recsys.decoding.validation import Validation
from recsys.encoders.inference import encode_histories
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ArgumentError, RetrievalError
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.log_states import log_states
from recsys.evaluation.targets import select_targets
from recsys.jagged import flat_ranges
from recsys.kernels.local_aggregation import reference
from recsys.retrieval.item_index import ItemIndex
from recsys.training.column_inputs import column_inputs

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 12}
QUICK: dict[str, Any] = {"epochs": 2, "batch_events": 256}


@functools.cache
def trained(name: str, store: SequenceStore) -> Recommender:
    options = SMALL if name != "mamba" else {"d_model": 16, "n_layers": 1, "max_length": 12}
    return Recommender(name, encoder_options=options, training_options=QUICK, index="exact").fit(store)


def fitted(name: str, store: SequenceStore) -> Recommender:
    """A trained model with an index of its own to come."""
    return copy.copy(trained(name, store))


@pytest.fixture(scope="module")
def model(store: SequenceStore) -> Recommender:
    return fitted("sasrec", store)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_the_memory_holds_the_state_before_every_training_event(name: str, store: SequenceStore) -> None:
    encoder = fitted(name, store).encoder_
    memory = collect_datastore(encoder, store, cap=10**6, batch_events=200)
    events = int((store.valid_start - store.offsets[:-1]).sum())
    assert len(memory) == events - store.n_users
    # Where a window holds the whole past, the state is that of the history.
    row, checked = 0, 0
    for user in range(store.n_users):
        first, last = int(store.offsets[user]), int(store.valid_start[user])
        for place in range(first + 1, last):
            assert memory.items[row] == store.items[place]
            if place - first <= encoder.history_length // 2 and user % 9 == 0:
                want = encode_histories(
                    encoder, store.items, store.timestamps, np.array([first]), np.array([place])
                )
                torch.testing.assert_close(memory.states[row : row + 1], want, rtol=1e-4, atol=1e-5)
                checked += 1
            row += 1
    assert checked > 20
    capped = collect_datastore(encoder, store, cap=3)
    assert capped.counts().max() == 3


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_the_memory_reads_columns_and_holds_what_is_predicted(name: str, tmp_path: Path) -> None:
    """A state is that of a request that knows its columns; events that are context alone lead to none."""
    kept: dict[str, Any] = {"event_columns": "action", "request_columns": "action"}
    frame = action_log(12, 10, mean_length=9, seed=1).frame
    store = prepare(frame, tmp_path / "data", target_where="action=buy", **kept)
    options = {**SMALL, "max_length": 60} if name != "mamba" else {"d_model": 16, "max_length": 60}
    reads = {"event_columns": ("action",), "request_columns": ("action",)}
    config = encoder_config(name, {**options, **reads, "repeat_bias": 0})
    encoder = build_encoder(name, store.n_items, config, columns=column_inputs(store)).eval()
    with torch.no_grad():
        for rows in (encoder.event_columns, encoder.request_columns):
            assert rows is not None
            rows.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert store.event_targets is not None
    first, last = store.offsets[:-1].astype(np.int64), store.valid_start.astype(np.int64)
    lengths = np.maximum(last - first - 1, 0)
    places = flat_ranges(first + 1, first + 1 + lengths)
    starts = np.repeat(first, lengths)
    starts, places = starts[store.event_targets[places]], places[store.event_targets[places]]
    memory = collect_datastore(encoder, store, cap=10**6)
    assert memory.items.tolist() == store.items[places].tolist()
    want = log_states(encoder, store, starts, places, asked=places)
    torch.testing.assert_close(memory.states, want, rtol=1e-4, atol=1e-4)


def test_long_sequences_are_read_in_overlapping_windows(model: Recommender, store: SequenceStore) -> None:
    memory = collect_datastore(model.encoder_, store)
    assert int((store.valid_start - store.offsets[:-1]).max()) > 2 * SMALL["max_length"]
    assert bool(torch.isfinite(memory.states).all())
    user = int(np.argmax(store.valid_start - store.offsets[:-1]))
    first, last = int(store.offsets[user]), int(store.valid_start[user])
    before = int((np.maximum(store.valid_start - store.offsets[:-1] - 1, 0))[:user].sum())
    # The state before the event in place 12 + 6 + 3 comes from the window that begins at place 12.
    starts, place = np.array([first + 12]), first + 12 + 6 + 3
    want = encode_histories(model.encoder_, store.items, store.timestamps, starts, np.array([place]))
    assert place < last
    torch.testing.assert_close(memory.states[before + place - first - 1][None], want, rtol=1e-4, atol=1e-5)


CHOICES = [("embedding", "global"), ("latent", "global"), ("mixed", "global"), ("latent", "local")]


@pytest.mark.parametrize(("vectors", "aggregate"), CHOICES)
def test_every_choice_of_vectors_answers_saves_and_evaluates_alike(
    vectors: Any, aggregate: Any, store: SequenceStore, tmp_path: Path, log: pl.DataFrame
) -> None:
    model = fitted("sasrec", store)
    told: list[str] = []
    model.build_index("exact", vectors=vectors, aggregate=aggregate, notify=told.append)
    assert (vectors == "embedding") == (not told)
    answer = model.recommend(users=[3, 7, 11], k=40)
    for user in (3, 7, 11):
        seen = set(log.filter(pl.col("user_id") == user)["item_id"].to_list())
        own = answer.filter(pl.col("user_id") == user)
        assert set(own["item_id"].to_list()) == set(log["item_id"].to_list()) - seen
        assert own["score"].is_sorted(descending=True)
    model.save(tmp_path / "run")
    loaded = recsys.load(tmp_path / "run")
    assert loaded.decoder_.decoding == model.decoder_.decoding
    again = loaded.recommend(users=[3, 7, 11], k=40)
    assert again["item_id"].equals(answer["item_id"])
    # The rank that evaluation gives a target is its place in the answers.
    result = model.evaluate(vectors=vectors, aggregate=aggregate)
    targets = select_targets(store, "test")
    states = hidden_function(model.encoder_, store)(targets.first_rows, targets).numpy()
    found = model.decoder_.search(states, store.n_items)
    biases = bias_function(model.encoder_, store)
    if vectors == "embedding" and biases is not None:
        window = biases(targets.first_rows, targets)
        everyone = np.arange(len(states) + 1)
        rest = model.decoder_.search(states, store.n_items, exclude=(window.ids, window.offsets))
        found = with_window(rest, window, states, everyone, model.decoder_, store.n_items)
    places = (found.ids == targets.target[:, None]).argmax(axis=1) + 1
    assert (places == result.ranks["kept"]).mean() > 0.97
    assert loaded.evaluate(vectors=vectors, aggregate=aggregate).metrics == result.metrics


def test_local_ranks_without_seen_items_keep_the_target(store: SequenceStore, model: Recommender) -> None:
    decoder = model._make_decoder("exact", "latent", "local")
    assert decoder.local is not None
    targets = select_targets(store, "test")
    states = hidden_function(model.encoder_, store)(targets.first_rows, targets)
    kept, removed = local_ranks(decoder.local, states, targets, store.items)
    for row in range(targets.n_rows):
        history = store.items[targets.history_start[row] : targets.history_end[row]]
        seen = np.setdiff1d(history, targets.target[row]).astype(np.int64)
        found = decoder.local.search(
            states[row : row + 1].numpy(), store.n_items, exclude=(seen, np.array([0, len(seen)]))
        )
        place = found.ids[0].tolist().index(int(targets.target[row])) + 1
        assert place == removed[row] <= kept[row]


def test_one_search_ranks_for_every_number_of_neighbours(
    store: SequenceStore, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_evaluation, "_USERS", 16)
    local = model._make_decoder("exact", "latent", "local").local
    assert local is not None
    targets = select_targets(store, "valid")
    assert targets.n_users > 32
    states = hidden_function(model.encoder_, store)(targets.first_rows, targets)
    numbers = (1, 20, len(local.items))
    kept, removed = ranks_by_neighbours(local, numbers, states, targets, store.items)
    far = -torch.cdist(states.double(), local.behind.vectors.double()).square().numpy()
    for place, neighbours in enumerate(numbers):
        own = LocalLatent(local.memory, local.items, local.behind, neighbours)
        scores, items = own.score(states.numpy())
        want = reference.local_ranks(
            scores, items, far, store.items, targets.history_start, targets.history_end, targets.target,
            targets.row_offsets,
        )  # fmt: skip
        np.testing.assert_array_equal(kept[place], want[0])
        np.testing.assert_array_equal(removed[place], want[1])
        alone = local_ranks(own, states, targets, store.items)
        np.testing.assert_array_equal(kept[place], alone[0])
        np.testing.assert_array_equal(removed[place], alone[1])


def test_neighbours_are_chosen_among_the_states_that_there_are(
    store: SequenceStore, model: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_building, "CAPS", (None,))
    monkeypatch.setattr(decoder_building, "NEIGHBOURS", (5, 50, 10**6, 10**7))
    told: list[str] = []
    decoder = model._make_decoder("exact", "latent", "local", notify=told.append)
    assert decoder.local is not None
    tried = [line.split(":") for line in told if line.startswith("local")]
    everything = len(decoder.local.items)
    assert [words for words, *_ in tried] == [f"local, {n} neighbours" for n in (5, 50, everything)]
    best = max(tried, key=lambda line: float(line[1].split()[1]))
    assert decoder.decoding.neighbours == decoder.local.neighbours == int(best[0].split()[1])


def test_an_index_without_its_memory_is_refused(store: SequenceStore, tmp_path: Path) -> None:
    model = fitted("sasrec", store)
    model.build_index("exact", vectors="latent", aggregate="local")
    model.save(tmp_path / "run")
    index = ItemIndex.load(tmp_path / "run" / "index")
    index.extra = {}
    index.save(tmp_path / "run" / "index")
    with pytest.raises(RetrievalError, match="memory is missing"):
        recsys.load(tmp_path / "run")


def test_names_that_are_not_known_are_refused(model: Recommender) -> None:
    with pytest.raises(ArgumentError, match="vectors='hidden' is not known"):
        model.build_index(vectors="hidden")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="pass vectors='latent'"):
        model.build_index(vectors="mixed", aggregate="local")
    with pytest.raises(ArgumentError, match="aggregate='near' is not known"):
        model.evaluate(vectors="latent", aggregate="near")  # type: ignore[arg-type]


def test_several_query_vectors_give_each_item_its_best_score(
    model: Recommender, store: SequenceStore
) -> None:
    starts, ends = store.offsets[:5].copy(), store.offsets[1:6].copy()
    states, offsets = interest_states(model.encoder_, store.items, store.timestamps, starts, ends, 4)
    assert np.all(np.diff(offsets) >= 2)
    weight = model.encoder_.item_weight.detach().numpy()
    found = model.decoder_.search_groups(states, offsets, 12)
    seen = np.concatenate([store.items[s:e] for s, e in zip(starts, ends, strict=True)])
    bounds = np.concatenate(([0], np.cumsum(ends - starts)))
    unseen = model.decoder_.search_groups(states, offsets, 12, exclude=(seen, bounds))
    for row in range(5):
        scores = (states[offsets[row] : offsets[row + 1]] @ weight.T).max(axis=0)
        best = np.lexsort((np.arange(len(scores)), -scores))
        assert found.ids[row].tolist() == best[:12].tolist()
        np.testing.assert_allclose(found.scores[row], scores[best[:12]], rtol=1e-5)
        history = set(store.items[starts[row] : ends[row]].tolist())
        left = [i for i in best.tolist() if i not in history][:12]
        assert [i for i in unseen.ids[row].tolist() if i >= 0] == left
    frame = model.recommend(users=[3], k=5, interests=4)
    assert not frame.equals(model.recommend(users=[3], k=5))
    assert model.recommend(histories=[[4]], k=5, interests=3).equals(model.recommend(histories=[[4]], k=5))
    with pytest.raises(ArgumentError, match="interests = 0"):
        model.recommend(users=[3], interests=0)
    with pytest.raises(ArgumentError, match="every group with a state"):
        model.decoder_.search_groups(states, np.array([0, 0, len(states)]), 3)


def test_centres_are_those_of_separate_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    states = np.concatenate([g + 0.1 * rng.standard_normal((20, 2)) for g in groups]).astype(np.float32)
    centres = centres_of(states, 3)
    assert np.abs(centres[np.lexsort(centres.T.round())] - groups[np.lexsort(groups.T)]).max() < 0.2
    assert len(centres_of(np.zeros((5, 2), dtype=np.float32), 3)) == 1
    assert len(centres_of(states[:0], 3)) == 0


def test_a_category_filters_by_the_catalogs_column(log: pl.DataFrame, tmp_path: Path) -> None:
    items = pl.DataFrame(
        {"item_id": range(30), "genres": ["Drama|War" if i % 3 else "Comedy" for i in range(30)]}
    )
    items.write_csv(tmp_path / "items.csv")
    recsys.prepare(log, tmp_path / "data", items=tmp_path / "items.csv")
    model = Recommender(encoder_options=SMALL, training_options={**QUICK, "epochs": 1}).fit(tmp_path / "data")
    comedies = model.recommend(histories=[[1, 3]], k=30, category="Comedy")
    assert sorted(comedies["item_id"].to_list()) == [i for i in range(0, 30, 3) if i != 3]
    both = model.recommend(histories=[[1, 3]], k=30, category=["Comedy", "War"], allow=[3, 6, 7, 9])
    assert sorted(both["item_id"].to_list()) == [6, 7, 9]
    with pytest.raises(recsys.errors.UnknownIdError, match="did you mean 'Comedy'"):
        model.recommend(histories=[[1]], category="Comedi")


def test_a_catalog_without_categories_says_so(model: Recommender) -> None:
    with pytest.raises(recsys.errors.DataError, match="no column category"):
        model.recommend(histories=[[1]], category="Comedy")


def test_an_index_of_another_catalog_is_refused(store: SequenceStore, tmp_path: Path) -> None:
    model = fitted("sasrec", store)
    model.build_index()
    model.save(tmp_path / "run")
    index = ItemIndex.load(tmp_path / "run" / "index")
    index.vocabulary = "other"
    index.save(tmp_path / "run" / "index")
    with pytest.raises(RetrievalError, match="another catalog"):
        recsys.load(tmp_path / "run")


def test_vectors_are_chosen_by_ranks_without_seen_items(store: SequenceStore, model: Recommender) -> None:
    validation = Validation(model.encoder_, store)
    weight = model.encoder_.item_vectors()
    targets, gains = validation.targets, []
    for row in range(targets.n_rows):
        scores = (weight @ validation.states[row]).numpy()
        history = store.items[targets.history_start[row] : targets.history_end[row]]
        target = int(targets.target[row])
        others = np.setdiff1d(np.arange(store.n_items), np.append(history, target))
        rank = 1 + int((scores[others] >= scores[target]).sum())
        gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    assert validation.ndcg(weight) == pytest.approx(float(np.mean(gains)), abs=1e-6)
