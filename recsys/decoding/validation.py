"""Validation events as a yardstick: states encoded once, any item vectors ranked against them."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.decoding.latent import with_column
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.log_states import log_states
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets, select_targets

USERS = 2000
"""Most users whose validation events decide; they are drawn once."""


class Validation:
    """The validation split of a store, for one encoder.

    Args:
        encoder: in evaluation mode.
        store: its data.
        seed: of the draw of users.
    """

    def __init__(self, encoder: SequenceEncoder, store: SequenceStore, seed: int = 0) -> None:
        self._encoder = encoder
        self.store = store
        self.users: Ints | None = None
        if store.n_users > USERS:
            rng = np.random.default_rng(seed)
            self.users = np.sort(rng.choice(store.n_users, USERS, replace=False))

    @property
    def possible(self) -> bool:
        """Whether anybody has a validation event and a history before it."""
        return self.targets.n_users > 0

    @cached_property
    def targets(self) -> EvaluationTargets:
        """The rows of the split."""
        return select_targets(self.store, "valid", "next", users=self.users)

    @cached_property
    def states(self) -> Tensor:
        """(U, d) state of each counted user."""
        rows = self.targets.first_rows
        return (
            log_states(
                self._encoder,
                self.store,
                self.targets.history_start[rows],
                self.targets.history_end[rows],
                asked=self.targets.request_position[rows],
            )
            .float()
            .cpu()
        )

    def sample(self, count: int = 256) -> Tensor:
        """(s, d) some of the states."""
        return self.states[:count]

    def ndcg(self, vectors: Tensor, column: float | None = None) -> float:
        """NDCG@10 of item vectors by inner product, seen items removed.

        Args:
            vectors: (V, d') item vectors.
            column: what the states carry in one more last place; None leaves them as they are.
        """
        queries = self.states if column is None else with_column(self.states, column)

        def states_of(rows: Ints, targets: EvaluationTargets) -> Tensor:
            return queries[torch.from_numpy(np.searchsorted(self.targets.user, targets.user[rows]))]

        result = evaluate_hidden(
            states_of,
            vectors,
            self.store,
            split="valid",
            ks=(10,),
            progress=False,
            users=self.users,
            lists=False,
            resamples=0,
        )
        return float(result.metrics_seen_removed["ndcg@10"])
