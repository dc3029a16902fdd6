"""Ranks and lists with a bias of the window's items, against a dense oracle on whole numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.encoders.repeat_bias import RepeatBias, window_items
from recsys.encoders.window_bias import WindowBias
from recsys.evaluation.card import render_card
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.protocol import PROTOCOLS
from recsys.evaluation.targets import EvaluationTargets, select_targets

WINDOW = 4


class Biased:
    """Whole-number scores: ties abound, and a bias that is a whole number too, up or down."""

    def __init__(self, store: Any, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.store = store
        self.weight = torch.randint(-1, 2, (store.n_items, 3), generator=generator).float()
        self.states = torch.randint(-2, 3, (store.n_users, 3), generator=generator).float()
        self.table = np.array([2.0, -3.0, 1.0], dtype=np.float32)

    def hidden(self, rows: Any, targets: EvaluationTargets) -> Tensor:
        return self.states[torch.from_numpy(targets.user[rows])]

    def bias(self, rows: Any, targets: EvaluationTargets) -> WindowBias:
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        ids, offsets, distances = window_items(self.store.items, starts, ends, WINDOW)
        return WindowBias(ids, offsets, self.table[np.minimum(distances, 3) - 1])

    def scores(self, targets: EvaluationTargets, row: int) -> list[float]:
        scores: list[float] = (self.weight @ self.states[int(targets.user[row])]).tolist()
        history = self.store.items[targets.history_start[row] : targets.history_end[row]].tolist()
        window = history[-WINDOW:]
        for item in set(window):
            distance = window[::-1].index(item) + 1
            scores[item] += float(self.table[min(distance, 3) - 1])
        return scores


@pytest.mark.parametrize("name", ["default", "recbole", "rectools"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_ranks_are_those_of_the_biased_scores(random_store: Any, name: str, split: Any) -> None:
    store = random_store(7, segment=3)
    model = Biased(store, seed=3)
    result = evaluate_hidden(
        model.hidden,
        model.weight,
        store,
        bias_fn=model.bias,
        split=split,
        protocol=name,
        ks=(1, 5),
        batch_rows=7,
    )
    rules = PROTOCOLS[name]
    targets = select_targets(
        store,
        split,
        rules.targets,
        drop_seen_targets=rules.seen_targets == "dropped",
        min_events=rules.min_events,
    )
    assert targets.repeated.any() or rules.seen_targets == "dropped"
    share = {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}[rules.ties]
    for seen in ("kept", "removed"):
        wanted = []
        for row in range(targets.n_rows):
            scores, target = model.scores(targets, row), int(targets.target[row])
            others = set(range(store.n_items)) - {target}
            if seen == "removed":
                history = store.items[targets.history_start[row] : targets.history_end[row]]
                others -= set(history.tolist())
            greater = sum(scores[i] > scores[target] for i in others)
            equal = sum(scores[i] == scores[target] for i in others)
            wanted.append(1 + greater + share * equal)
        assert result.ranks[seen].tolist() == wanted


def test_lists_hold_the_best_of_the_biased_scores(random_store: Any) -> None:
    store = random_store(9)
    model = Biased(store, seed=5)
    result = evaluate_hidden(model.hidden, model.weight, store, bias_fn=model.bias, ks=(3,))
    targets = select_targets(store, "test", "next")
    shown = set()
    for row in targets.first_rows:
        scores = model.scores(targets, int(row))
        shown |= set(sorted(range(store.n_items), key=lambda i: (-scores[i], i))[:3])
    assert "learned bias" in render_card(result.protocol)
    plain = evaluate_hidden(model.hidden, model.weight, store, ks=(3,))
    assert "learned bias" not in render_card(plain.protocol)
    assert result.lists["kept"]["coverage@3"] == pytest.approx(len(shown) / store.n_items)


def test_window_items_are_distinct_with_the_distance_of_the_last_occurrence() -> None:
    items = np.array([9, 5, 7, 5, 5, 8, 1], dtype=np.int32)
    starts, ends = np.array([1, 3, 6]), np.array([6, 3, 7])
    ids, offsets, distances = window_items(items, starts, ends, 4)
    assert offsets.tolist() == [0, 3, 3, 4]
    assert dict(zip(ids[:3].tolist(), distances[:3].tolist(), strict=True)) == {7: 4, 5: 2, 8: 1}
    assert (ids[3], distances[3]) == (1, 1)


def test_biases_go_by_powers_of_two() -> None:
    biases = RepeatBias(3)
    with torch.no_grad():
        biases.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    found = biases.of_distances(np.array([1, 2, 3, 4, 7, 8, 1000]))
    assert found.tolist() == [8.0, 16.0, 16.0, 24.0, 24.0, 24.0, 24.0]
