import pytest
import torch

from recsys.benchmarks.repeat_bias import local_store
from recsys.benchmarks.step_launches import count_launches
from recsys.benchmarks.steps import Steps

pytest.importorskip("triton")


def test_operators_are_counted_each_time_and_views_and_room_are_not() -> None:
    x, weight = torch.ones(4, 16), torch.ones(16, 16)

    def step() -> None:
        found = x
        for _ in range(3):
            found = (found.view(2, 2, 16).view(4, 16) @ weight).T.T
        torch.empty(5)
        found.relu_()

    assert count_launches(step) == {"kernels": 0, "operators": {"mm": 3, "relu_": 1}, "total": 4}


def test_a_step_of_an_encoder_launches_its_kernels_whatever_the_batch() -> None:
    store = local_store(20)
    encoder = {"max_length": 50, "repeat_bias": 8, "d_model": 16, "n_layers": 1}
    found = []
    for layers, events in ((1, 500), (1, 900), (2, 500)):
        steps = Steps(
            "sasrec", store, encoder={**encoder, "n_layers": layers}, batch_events=events, loss="full"
        )
        found.append(count_launches(steps))
    assert found[0]["total"] == found[1]["total"] < found[2]["total"]
    # A layer: two residuals, an activation, a rotation and attention, each forward and backward; attention's
    # backward pass is two kernels, and its sequences of two classes double what it launches.
    assert found[2]["kernels"] - found[0]["kernels"] >= 10
    assert found[0]["operators"]["native_layer_norm"] < found[2]["operators"]["native_layer_norm"]
