"""A log made by a known Markov chain: nobody can do better than its rule, and each encoder comes close."""

from pathlib import Path

import pytest

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic import SyntheticLog, markov_log


@pytest.fixture(scope="module")
def log() -> SyntheticLog:
    return markov_log(1500, 60, mean_length=30, branching=20, seed=0)


@pytest.fixture(scope="module")
def prepared(log: SyntheticLog, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    return prepare(log.frame, Path(tmp_path_factory.mktemp("markov")) / "data")


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "epochs"), [("sasrec", 12), ("bert4rec", 40), ("mamba", 12)])
def test_each_encoder_nears_the_best_possible_score(
    encoder: str, epochs: int, log: SyntheticLog, prepared: SequenceStore
) -> None:
    model = Recommender(
        encoder,
        encoder_options={"d_model": 32, "n_layers": 1, "d_ff": 64, "max_length": 40, "dropout": 0.1},
        training_options={
            "epochs": epochs,
            "batch_events": 1024,
            "learning_rate": 3e-3,
            "ema_decay": 0.98,
            "evaluate_every": 4,
        },
    ).fit(prepared)
    reached = model.evaluate().metrics_seen_kept["hr@10"]
    popularity = model.evaluate().popularity["kept"]["hr@10"]
    assert reached >= 0.95 * log.best["hr@10"]
    assert popularity < 0.6 * log.best["hr@10"]
