"""The sum of a window's item vectors: what is added to the states, and what is not."""

import math
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys import Recommender
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.item_sum import ItemSum, SummedState
from recsys.jagged import SequenceBatch

NAMES = ("sasrec", "bert4rec", "mamba")
ITEMS = 20
KEPT = (0.8, 0.3)
"""What an event counts to the next one, in each of the two sums."""


def encoder_of(name: str, **options: object) -> SequenceEncoder:
    config = encoder_config(name, {"d_model": 8, "n_layers": 1, "max_length": 8, "item_sum": True, **options})
    encoder = build_encoder(name, ITEMS, config).eval()
    with torch.no_grad():
        assert encoder.item_sum is not None
        encoder.item_sum.scale.copy_(torch.linspace(-1, 2, 16))
        encoder.item_sum.log_rates.copy_(torch.tensor([math.log(math.log(1 / share)) for share in KEPT]))
    return encoder


def added(encoder: SequenceEncoder, items: list[int]) -> Tensor:
    """What the sums of some items add to a state, worked out."""
    assert encoder.item_sum is not None
    rows = encoder.item_embedding.weight.detach()[items]
    found = torch.zeros(8)
    for kept, scale in zip(KEPT, encoder.item_sum.scale.detach().view(2, 8), strict=True):
        weights = torch.tensor([kept**back for back in range(len(items))][::-1])
        total = max(sum(weights.tolist()), 1.0)
        found += scale * (weights[:, None] * rows).sum(0) / math.sqrt(total)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_state_gets_the_items_up_to_it(name: str) -> None:
    encoder = encoder_of(name)
    histories = [[3, 5, 5, 9], [], [7], [1, 2, 3, 4, 5, 6, 7, 8]]
    batch = SequenceBatch.from_sequences(histories)
    with torch.no_grad():
        found = encoder(batch) - encoder.encode(batch)
    wanted = [added(encoder, own[: at + 1]) for own in histories for at in range(len(own))]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-6)


def test_hidden_items_are_not_summed() -> None:
    encoder = encoder_of("bert4rec")
    mask = ITEMS
    batch = SequenceBatch.from_sequences([[mask, 4, mask, 6], [2, mask]])
    with torch.no_grad():
        found = encoder(batch) - encoder.encode(batch)
    wanted = [added(encoder, own) for own in ([], [4], [4], [4, 6], [2], [2])]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_streams_keep_summing_past_the_window(name: str) -> None:
    """All events count in a stream, as in the clock's; the encoder's own part has its window."""
    encoder, items = encoder_of(name), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    state = encoder.initial_state(1)
    with torch.no_grad():
        for item in items:
            hidden, state = encoder.step(state, torch.tensor([item]))
        own = encoder.encode_start(1)
        for item in items:
            alone, own = encoder.encode_step(own, torch.tensor([item]))
    assert isinstance(state, SummedState)
    torch.testing.assert_close(hidden[0], alone[0] + added(encoder, items), rtol=1e-4, atol=1e-6)
    weights = [sum(kept**back for back in range(len(items))) for kept in KEPT]
    assert state.sums[0, :, -1].tolist() == pytest.approx(weights)


def test_the_sum_is_dropped_in_training_by_the_seed_alone() -> None:
    encoder = encoder_of("sasrec", dropout=0.5).train()
    batch = SequenceBatch.from_sequences([[1, 2, 3], [4, 5, 6, 7]])

    def states(seed: int) -> Tensor:
        return encoder(batch, generator=torch.Generator().manual_seed(seed))  # type: ignore[no-any-return]

    assert torch.equal(states(1), states(1))
    assert not torch.equal(states(1), states(2))


def test_scales_and_rates_learn() -> None:
    encoder = encoder_of("sasrec")
    batch = SequenceBatch.from_sequences([[1, 2, 3], [4, 5]])
    encoder(batch).square().sum().backward()
    assert encoder.item_sum is not None
    step = 0.01
    for parameter in (encoder.item_sum.scale, encoder.item_sum.log_rates):
        gradient = parameter.grad
        assert gradient is not None
        values = []
        with torch.no_grad():
            for change in (step, -2 * step):
                parameter[1] += change
                values.append(encoder(batch).square().sum().item())
            parameter[1] += step
        assert gradient[1].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", ["full", "sampled_softmax"])
def test_a_run_learns_it_and_is_loaded_with_it(name: str, loss: str, tmp_path: Path) -> None:
    rows = [(user, (user + at) % 15, at) for user in range(30) for at in range(7)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    model = Recommender(
        name,
        encoder_options={"d_model": 8, "n_layers": 1, "max_length": 8, "item_sum": True},
        training_options={
            "loss": loss,
            "negatives": 4 * (loss != "full"),
            "epochs": 2,
            "batch_events": 64,
            "learning_rate": 0.02,
            "warmup_steps": 0,
        },
        index="exact",
    )
    model.fit(log, out=tmp_path / "run")
    assert model.encoder_.item_sum is not None
    start = ItemSum(8, 15, 8)
    assert not torch.equal(model.encoder_.item_sum.scale, start.scale)
    assert not torch.equal(model.encoder_.item_sum.log_rates, start.log_rates)
    found = model.recommend([3, 4], k=4)
    again = Recommender.load(tmp_path / "run").recommend([3, 4], k=4)
    assert found["score"].to_list() == pytest.approx(again["score"].to_list(), abs=1e-5)


def test_it_is_off_where_nobody_asks_for_it() -> None:
    assert build_encoder("sasrec", ITEMS, encoder_config("sasrec", {})).item_sum is None
