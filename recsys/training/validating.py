"""Metrics on the validation events, by which an epoch's weights are chosen."""

from collections.abc import Callable, Mapping

import numpy as np

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.target_loss import TargetLoss
from recsys.training.config import TrainingConfig
from recsys.training.losses import plan_loss
from recsys.training.processes import ALONE, Processes

VALIDATION_LOSS = "loss"
"""Name of the validation loss among the metrics."""


def validation_metrics(
    store: SequenceStore, training: TrainingConfig, processes: Processes = ALONE
) -> Callable[[SequenceEncoder], Mapping[str, float]] | None:
    """What the trainer calls for metrics on the validation events; None for a log without any.

    At most `validation_users` users are asked, drawn once. Metrics are at 10 and at the cut-off of
    `training.select`. A run with the full softmax is told the validation loss, too: a sampled loss cannot be
    set beside it, and over a large catalog it would take long.

    Several processes rank a part of the users each; the metrics are those of one.
    """
    sharing = processes if processes.size > 1 else None
    if not (np.asarray(store.test_start) > np.asarray(store.valid_start)).any():
        return None
    drawn = None
    if store.n_users > training.validation_users:
        rng = np.random.default_rng(training.seed)
        drawn = np.sort(rng.choice(store.n_users, training.validation_users, replace=False))

    def validate(encoder: SequenceEncoder) -> Mapping[str, float]:
        weight, bias_fn = encoder.item_vectors(), bias_function(encoder, store)
        states = hidden_function(encoder, store)
        loss = None
        if not plan_loss(training, encoder.n_items, encoder.device).sampled:
            states = loss = TargetLoss(states, weight, bias_fn, sharing)
        result = evaluate_hidden(
            states,
            weight,
            store,
            bias_fn=bias_fn,
            split="valid",
            ks=(10, training.selection_cutoff),
            progress=False,
            users=drawn,
            lists=False,
            resamples=0,
            sharing=sharing,
        )
        return result.metrics if loss is None else {**result.metrics, VALIDATION_LOSS: loss.mean(result.rows)}

    return validate
