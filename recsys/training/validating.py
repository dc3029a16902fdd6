"""Metrics on the validation events, by which an epoch's weights are chosen."""

from collections.abc import Callable, Mapping

import numpy as np

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.training.config import TrainingConfig


def validation_metrics(
    store: SequenceStore, training: TrainingConfig
) -> Callable[[SequenceEncoder], Mapping[str, float]] | None:
    """What the trainer calls for metrics on the validation events; None for a log without any.

    At most `validation_users` users are asked, drawn once.
    """
    if not (np.asarray(store.test_start) > np.asarray(store.valid_start)).any():
        return None
    drawn = None
    if store.n_users > training.validation_users:
        rng = np.random.default_rng(training.seed)
        drawn = np.sort(rng.choice(store.n_users, training.validation_users, replace=False))

    def validate(encoder: SequenceEncoder) -> Mapping[str, float]:
        return evaluate_hidden(
            hidden_function(encoder, store),
            encoder.item_vectors(),
            store,
            bias_fn=bias_function(encoder, store),
            split="valid",
            ks=(10,),
            progress=False,
            users=drawn,
            lists=False,
            resamples=0,
        ).metrics

    return validate
