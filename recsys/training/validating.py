"""Metrics on the validation events, by which an epoch's weights are chosen."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.items import ShardedItemEmbedding
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.spans import Ints
from recsys.evaluation.target_loss import TargetLoss
from recsys.training.config import TrainingConfig
from recsys.training.losses import plan_loss
from recsys.training.processes import ALONE, Processes
from recsys.training.sharded_ranking import VALIDATION_LOSS, ShardedRanking

__all__ = ["VALIDATION_LOSS", "validation_metrics"]


def validation_metrics(
    store: SequenceStore, training: TrainingConfig, processes: Processes = ALONE
) -> Callable[[SequenceEncoder], Mapping[str, float]] | None:
    """What the trainer calls for metrics on the validation events; None for a log without any.

    At most `validation_users` users are asked, drawn once. Metrics are at 10 and at the cut-off of
    `training.select`. A run with the full softmax is told the validation loss, too: a sampled loss cannot be
    set beside it, and over a large catalog it would take long.

    Several processes rank a part of the users each, or, where each has a part of the item table, all users
    among their own items; the metrics are those of one.
    """
    sharing = processes if processes.size > 1 else None
    if not store.has_validation:
        return None
    drawn = None
    if store.n_users > training.validation_users:
        rng = np.random.default_rng(training.seed)
        drawn = np.sort(rng.choice(store.n_users, training.validation_users, replace=False))

    @functools.cache
    def asked() -> tuple[SequenceStore, Ints | None]:
        """The log that is read and its users; of shards the drawn users' events alone, in memory."""
        if not isinstance(store, ShardedStore):
            return store, drawn
        return store.of_users(np.arange(store.n_users) if drawn is None else drawn), None

    def validate(encoder: SequenceEncoder) -> Mapping[str, float]:
        log, users = asked()
        if isinstance(encoder.item_embedding, ShardedItemEmbedding):
            sampled = plan_loss(training, encoder.n_items, encoder.device).sampled
            ranking = ShardedRanking(encoder, log, processes, with_loss=not sampled)
            return ranking.metrics((10, training.selection_cutoff), users)
        weight, bias_fn = encoder.item_vectors(), bias_function(encoder, log)
        states = hidden_function(encoder, log)
        loss = None
        if not plan_loss(training, encoder.n_items, encoder.device).sampled:
            states = loss = TargetLoss(states, weight, bias_fn, sharing)
        result = evaluate_hidden(
            states,
            weight,
            log,
            bias_fn=bias_fn,
            split="valid",
            ks=(10, training.selection_cutoff),
            progress=False,
            users=users,
            lists=False,
            resamples=0,
            sharing=sharing,
        )
        return result.metrics if loss is None else {**result.metrics, VALIDATION_LOSS: loss.mean(result.rows)}

    return validate
