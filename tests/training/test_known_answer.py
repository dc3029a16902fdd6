"""A log made by a known Markov chain: nobody can do better than its rule, and each encoder comes close."""

from pathlib import Path

import pytest

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic.logs import SyntheticLog, markov_log


@pytest.fixture(scope="module")
def log() -> SyntheticLog:
    return markov_log(1000, 60, mean_length=30, branching=20, seed=0)


@pytest.fixture(scope="module")
def prepared(log: SyntheticLog, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    return prepare(log.frame, Path(tmp_path_factory.mktemp("markov")) / "data")


# Cloze learns the step from left to right only where it hides last events: short windows have many.
OPTIONS: dict[str, dict[str, object]] = {
    "sasrec": {"max_length": 40},
    "bert4rec": {"max_length": 6, "mask_probability": 0.2, "last_mask_probability": 0.6},
    "mamba": {"max_length": 40},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "epochs", "rate"), [("sasrec", 12, 5e-3), ("bert4rec", 48, 5e-3), ("mamba", 12, 5e-3)]
)
def test_each_encoder_nears_the_best_possible_score(
    encoder: str, epochs: int, rate: float, log: SyntheticLog, prepared: SequenceStore
) -> None:
    model = Recommender(
        encoder,
        encoder_options={"d_model": 32, "n_layers": 1, "d_ff": 64, "dropout": 0.1, **OPTIONS[encoder]},
        training_options={
            "epochs": epochs,
            "batch_events": 1024,
            "learning_rate": rate,
            "label_smoothing": 0.0,
            "ema_decay": 0.98,
            "evaluate_every": 4,
        },
    ).fit(prepared)
    result = model.evaluate()
    assert result.metrics_seen_kept["hr@10"] >= 0.95 * log.best["hr@10"]
    assert result.popularity["kept"]["hr@10"] < 0.6 * log.best["hr@10"]
