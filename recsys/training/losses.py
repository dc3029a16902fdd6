"""Which loss a run is trained with, its negatives, and why.

The full softmax needs nothing but the catalog; a sampled loss costs what the batch touches, whatever the
catalog's size, and is an estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.item_tower import ItemTower
from recsys.errors import ConfigError
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.kernels.embedding import item_vectors
from recsys.kernels.repeats import RepeatLayout
from recsys.kernels.sampled_loss import bce_loss, bpr_loss, gbce_loss, sampled_softmax_loss
from recsys.kernels.sampling import (
    NegativeSampler,
    draw_in_batch,
    draw_negatives,
    draw_shared,
    log_expected_count,
    popularity_sampler,
    uniform_sampler,
)
from recsys.training.batches import target_counts
from recsys.training.config import OWN_NEGATIVES, TrainingConfig
from recsys.training.precision import as_multiplied
from recsys.training.shown_loss import shown_loss

__all__ = ["FULL_LOSS_ITEMS", "LossPlan", "Negatives", "TrainingLoss", "plan_loss"]

FULL_LOSS_ITEMS = {"cpu": 50_000, "cuda": 1_000_000}
"""Largest catalogs for which "auto" takes the full softmax.

By arithmetic, not by measurement: it takes 6 V d operations a target. At V = 50,000 and d = 64 a CPU core of
40 GFLOP/s needs half a millisecond for them, half an hour per pass over four million events. A GPU has the
operations to spare; there the item table with its gradient and moments, 16 V d bytes, is a gigabyte at the
limit.
"""

SHARED_ABOVE = 64
"""Negatives per target above which sampled softmax draws once for the whole batch: the loss is then matrix
products, several times as fast as gathering every row's own negatives."""

TITLES = {
    "full": "full softmax",
    "sampled_softmax": "sampled softmax with logQ correction",
    "gbce": "gBCE",
    "bce": "BCE",
    "bpr": "BPR",
    "shown": "softmax over what was shown",
}


@dataclass(frozen=True, slots=True)
class LossPlan:
    """What `training.loss` comes to for a catalog and a device.

    Attributes:
        name: full, sampled_softmax, gbce, bce, bpr or shown.
        n_negatives: K; 0 for the full softmax, and for slates, whose lengths differ.
        shared: whether all rows of a batch share their negatives.
        line: which loss and why, for people.
    """

    name: str
    n_negatives: int
    shared: bool
    line: str

    @property
    def sampled(self) -> bool:
        """Whether the loss touches the batch's items alone."""
        return self.name != "full"


@dataclass(frozen=True, slots=True, eq=False)
class Negatives:
    """Negatives of one batch, on the host.

    Attributes:
        ids: (M, K) of each row or (K,) shared, int64.
        log_q: shape of ids, log of expected counts, or None where the loss takes no correction.
        taken: (M,) bool, of slates: whether the target was taken; where it was not, nothing was, and the
            target is but one item of the slate. None where all were.
    """

    ids: Tensor
    log_q: Tensor | None
    taken: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainedItems:
    """The items with a training event, where the loss is over these alone.

    Nobody could have clicked the others: as negatives they would be pushed down, and with them the features
    that they share with others. Items that are their ids alone share nothing: there it is right that what
    never trains comes last.

    Attributes:
        ids: (W,) int64.
        numbers: (V,) int64 place of each item among them; -1 for the others.
    """

    ids: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, encoder: SequenceEncoder, store: SequenceStore) -> "TrainedItems | None":
        """The trained items of a log; None where the loss is over the whole catalog."""
        if not isinstance(encoder.item_embedding, ItemTower):
            return None
        counts = store.item_counts()
        if (counts > 0).all():
            return None
        ids = np.flatnonzero(counts > 0)
        numbers = np.full(len(counts), -1, dtype=np.int64)
        numbers[ids] = np.arange(len(ids))
        return cls(torch.from_numpy(ids), torch.from_numpy(numbers))

    def to(self, device: torch.device) -> "TrainedItems":
        """The same on a device."""
        if self.ids.device == device:
            return self
        return TrainedItems(self.ids.to(device), self.numbers.to(device))


def plan_loss(config: TrainingConfig, n_items: int, device: torch.device) -> LossPlan:
    """Choose full or sampled by catalog size where the configuration leaves it open."""
    limit = FULL_LOSS_ITEMS.get(device.type, FULL_LOSS_ITEMS["cpu"])
    name, why = config.loss, "as configured"
    if name == "auto":
        full = n_items <= limit
        name = "full" if full else "sampled_softmax"
        relation = "up to" if full else "more than"
        why = f"for {n_items:,} items, {relation} the {limit:,} at which it pays on a {device.type} device"
    if name in ("full", "shown"):
        return LossPlan(name, 0, False, f"Loss: {TITLES[name]}, {why}")
    count = config.negatives or OWN_NEGATIVES[name]
    in_batch = config.negative_sampling == "in_batch"
    shared = in_batch or (name == "sampled_softmax" and count > SHARED_ABOVE)
    source = {
        "uniform": "uniform negatives",
        "popularity": f"negatives by popularity^{config.popularity_power:g}",
        "in_batch": "targets of the batch",
    }[config.negative_sampling]
    spread = "shared by the batch" if shared else "for each target"
    return LossPlan(name, count, shared, f"Loss: {TITLES[name]} over {count:,} {source} {spread}, {why}")


class TrainingLoss:
    """The loss of a run: draws negatives on the host, computes on the device.

    Args:
        encoder: whose items are scored.
        store: for the popularity of items and which of them train; only training events are counted. None
            where neither matters.
        config: of the run.

    Attributes:
        parallel: mean loss of hidden states (M, D) and targets (M,) that takes the place of the full softmax
            where the item table lies on several processes; None elsewhere.

    Raises:
        ConfigError: the encoder has a repeat bias and the loss samples.
    """

    def __init__(self, encoder: SequenceEncoder, store: SequenceStore | None, config: TrainingConfig) -> None:
        self.plan = plan_loss(config, encoder.n_items, encoder.device)
        if self.plan.sampled and encoder.repeat_bias is not None:
            raise ConfigError(
                f"encoder.repeat_bias = {encoder.config.repeat_bias} is learned by the full softmax and the "
                f"loss is {TITLES[self.plan.name]}: set encoder.repeat_bias = 0, or training.loss = 'full'"
            )
        self.parallel: Callable[[Tensor, Tensor], Tensor] | None = None
        self._encoder = encoder
        self._config = config
        self._trained = None if store is None else TrainedItems.of(encoder, store)
        self._sampler: NegativeSampler | None = None
        if self.plan.n_negatives:
            if config.negative_sampling == "uniform":
                self._sampler = uniform_sampler(self.n_items)
            else:
                assert store is not None
                power, counts = config.popularity_power, store.item_counts()
                if config.negative_sampling == "in_batch":
                    power, counts = 1.0, target_counts(store)
                self._sampler = popularity_sampler(
                    counts if self._trained is None else counts[self._trained.ids.numpy()], power
                )

    @property
    def n_items(self) -> int:
        """Items that the loss is over."""
        return self._encoder.n_items if self._trained is None else len(self._trained.ids)

    def scored(self, targets: Tensor, negatives: Negatives | None) -> Tensor | None:
        """Items that the loss of a batch scores, on the targets' device; None for the whole catalog."""
        if negatives is None:
            return None
        return torch.cat((targets, negatives.ids.to(targets.device).reshape(-1)))

    def draw(self, targets: Tensor, seed: int) -> Negatives | None:
        """Negatives for (M,) targets on the host, the same for the same seed; None if the loss draws none."""
        sampler, count = self._sampler, self.plan.n_negatives
        if sampler is None:
            return None
        if self._trained is not None:
            targets = self._trained.numbers[targets]
        if self._config.negative_sampling == "in_batch":
            ids = draw_in_batch(targets, count, seed)
        elif self.plan.shared:
            ids = draw_shared(sampler, count, seed)
        else:
            ids = draw_negatives(sampler, targets, count, seed)
        avoided = None if self.plan.shared else targets
        log_q = None
        if self.plan.name == "sampled_softmax":
            log_q = log_expected_count(sampler, ids, ids.shape[-1], avoided)
        return Negatives(ids if self._trained is None else self._trained.ids[ids], log_q)

    def __call__(
        self,
        hidden: Tensor,
        targets: Tensor,
        negatives: Negatives | None,
        repeats: RepeatLayout | None = None,
        *,
        weights: Tensor | None = None,
        sees_later: bool = False,
    ) -> Tensor:
        """Mean loss of M hidden states, on their device.

        Args:
            hidden: (M, D).
            targets: (M,) int64.
            negatives: from `draw`, still on the host.
            repeats: of an encoder with a repeat bias, on the device.
            weights: (M,) float32 how much each counts in the mean; None for all alike.
            sees_later: whether events after a target's place are in its window.
        """
        config, temperature = self._config, self._config.temperature
        if repeats is not None:
            return self._with_repeats(hidden, targets, repeats, weights, sees_later)
        if negatives is None and self.parallel is not None:
            return self.parallel(hidden, targets)
        if negatives is None:
            weight, targets = self._catalog(targets)
            return linear_cross_entropy(
                hidden,
                weight,
                targets,
                weight=weights,
                label_smoothing=config.label_smoothing,
                temperature=temperature,
            )
        if self.plan.name == "shown":
            device = hidden.device
            taken = None if negatives.taken is None else negatives.taken.to(device, non_blocking=True)
            slates = negatives.ids.to(device, non_blocking=True)
            return shown_loss(self._encoder, hidden, targets, slates, taken, weights, temperature)
        scored = self._encoder.scored_items
        items, sparse = scored.items, not isinstance(scored, ItemTower)
        targets = scored.places(targets)
        ids = scored.places(negatives.ids.to(hidden.device, non_blocking=True))
        if self.plan.name == "sampled_softmax":
            assert negatives.log_q is not None
            return sampled_softmax_loss(
                hidden,
                items,
                targets,
                ids,
                log_q=negatives.log_q.to(hidden.device, non_blocking=True),
                label_smoothing=config.label_smoothing,
                temperature=temperature,
                weight=weights,
                sparse=sparse,
            )
        if self.plan.name == "gbce":
            return gbce_loss(
                hidden,
                items,
                targets,
                ids,
                t=config.gbce_t,
                n_items=self.n_items,
                temperature=temperature,
                weight=weights,
                sparse=sparse,
            )
        compute = bce_loss if self.plan.name == "bce" else bpr_loss
        return compute(hidden, items, targets, ids, temperature=temperature, weight=weights, sparse=sparse)

    def _catalog(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the items that the softmax is over, and the targets' places among them."""
        weight = self._encoder.item_weight
        if self._trained is None:
            return weight, targets
        trained = self._trained.to(targets.device)
        return item_vectors(weight, trained.ids), trained.numbers[targets]

    def _with_repeats(
        self,
        hidden: Tensor,
        targets: Tensor,
        layout: RepeatLayout,
        weights: Tensor | None,
        sees_later: bool,
    ) -> Tensor:
        """Mean full-softmax loss where the items of a row's window have a learned bias."""
        encoder, smoothing = self._encoder, self._config.label_smoothing
        temperature = self._config.temperature
        assert encoder.repeat_bias is not None
        weight, places = self._catalog(targets)
        losses = linear_cross_entropy(
            hidden,
            weight,
            places,
            label_smoothing=smoothing,
            temperature=temperature,
            reduction="none",
        )
        # The window's logits come from the numbers that the fused loss multiplied.
        states = as_multiplied(hidden)
        keys, wanted = (as_multiplied(encoder.scored_items(ids)) for ids in (layout.items, targets))
        with torch.autocast(hidden.device.type, enabled=False):
            own = (states * wanted).sum(-1) / temperature
            totals = losses.to(states.dtype) + (1 - smoothing) * own
            if smoothing > 0:
                totals = totals + smoothing / temperature * (states @ as_multiplied(weight).mean(0))
            correction = encoder.repeat_bias.correction(
                states,
                keys,
                totals,
                layout,
                sees_later=sees_later,
                n_items=self.n_items,
                label_smoothing=smoothing,
                temperature=temperature,
            )
            if weights is None:
                return (losses + correction).sum() / max(len(targets), 1)
            return ((losses + correction) * weights).sum() / weights.sum()
