"""How a run is trained."""

import re
from dataclasses import dataclass
from typing import Literal

from recsys.config import require

OWN_NEGATIVES = {"sampled_softmax": 2048, "gbce": 256, "bce": 1, "bpr": 1}
"""Negatives of each sampled loss where `negatives` leaves it open: published ones but for softmax."""


SELECTION_METRIC = "ndcg@10"
"""By which weights are kept unless the configuration names another."""
_SELECTION = re.compile(r"(hr|recall|ndcg|mrr)@([1-9][0-9]{0,3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Optimization, stopping and the seed of a training run."""

    seed: int = 0
    """Decides weights, batches, masks and dropout; 0 or more."""
    epochs: int = 200
    """Most passes over the training events; 1 or more. Early stopping usually ends the run before."""
    batch_events: int = 4096
    """Events per optimization step, a budget for packed sequences; 2 or more."""
    learning_rate: float = 1e-3
    """Peak step size of AdamW; above 0. 1e-3 is what most published recipes use."""
    accumulate: int = 1
    """Batches whose gradients make one optimization step, weighted by their targets: batch_events times as
    many in the memory of one; 1 or more."""
    shard_items: bool = False
    """Whether each of several processes has a part of the item table and of its moments, for catalogs beyond
    one device. A sampled loss gives the same bits on every number of processes, the full softmax the same to
    rounding. Not with item_hashes, item_parts, repeat_bias or a head of its own."""
    prefetch: int = 2
    """Batches prepared ahead by a thread; changes no result; 0 prepares each when it is due; 0 or more."""
    loss: Literal["auto", "full", "sampled_softmax", "gbce", "bce", "bpr", "shown"] = "auto"
    """full: softmax over the catalog; sampled_softmax: over negatives, with logQ correction; gbce: gSASRec's;
    bce: SASRec's; bpr: pairwise; shown: softmax over what was shown with the target, of a log prepared with
    shown_column. auto: full where the catalog is small enough, else sampled_softmax."""
    negatives: int = 0
    """Negatives per target of a sampled loss; 0 takes the loss's own: 2048 for sampled_softmax (shared by a
    batch, as are any above 64), 256 for gbce, 1 for bce and bpr; 0 or more."""
    negative_sampling: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """Where negatives come from: all items alike; training events to the power popularity_power; other
    targets of the batch, by their share of the training events that count in the logQ correction."""
    popularity_power: float = 0.75
    """Power of an item's training events in popularity sampling; 0 to 4. 0.75 is word2vec's."""
    propensity_power: float = 0.0
    """Targets count by their item's training events to minus this power, at most ten times the mean, so that
    what was shown often does not count more; 0 to 4."""
    gbce_t: float = 0.75
    """Calibration of gbce, from 0 (plain bce) to 1. gSASRec takes 0.75."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's averaging factors, each at least 0 and below 1; (0.9, 0.98) as in SASRec and eSASRec."""
    weight_decay: float = 0.0
    """AdamW's decay of weight matrices per step (times the learning rate); 0 or more. Norms, biases and
    state-space parameters are never decayed."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly from 0; 0 or more."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Course of the learning rate after the warm-up: kept, or brought down to 0 by the last of `epochs` along
    half a cosine or a line. Early stopping may end a run on the way."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""
    label_smoothing: float = 0.0
    """Share of the target's probability spread over the catalog, or over the negatives of sampled_softmax;
    0 up to (not including) 1, and 0 with gbce, bce, bpr and shown."""
    temperature: float = 1.0
    """Scores are divided by it in the loss, in training only; above 0."""
    ema_decay: float = 0.0
    """Averaging factor per step of the weights that are evaluated and kept; 0 keeps the last weights."""
    select: str = SELECTION_METRIC
    """Validation metric by which weights are kept and training stops: hr, recall, ndcg or mrr, then @ and a
    cut-off from 1 to 9999."""
    patience: int = 10
    """Evaluations without a better validation metric (`select`) before training stops; 1 or more."""
    evaluate_every: int = 1
    """Epochs between evaluations on the validation events; 1 or more."""
    validation_users: int = 10_000
    """Most users that a validation during training ranks, drawn once by the seed; 1 or more."""
    substitute: float = 0.0
    """Share of a batch's input items that an item near to them takes the place of; targets stay; 0 up to (not
    including) 1."""
    substitute_by: Literal["beside", "features"] = "beside"
    """What makes items near: standing beside each other in training sequences, or the tags and vectors that
    the log was prepared with."""
    amp: bool = True
    """Mixed precision (products of bfloat16) on a CUDA device, and on a CPU with matrix tiles (AMX)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.seed < 2**63, "training.seed", self.seed, "from 0 to 2**63 - 1")
        require(self.epochs >= 1, "training.epochs", self.epochs, "1 or more")
        require(self.batch_events >= 2, "training.batch_events", self.batch_events, "2 or more")
        require(self.accumulate >= 1, "training.accumulate", self.accumulate, "1 or more")
        require(self.prefetch >= 0, "training.prefetch", self.prefetch, "0 or more")
        require(0 <= self.negatives <= 65_536, "training.negatives", self.negatives, "from 0 to 65,536")
        require(
            0 <= self.popularity_power <= 4, "training.popularity_power", self.popularity_power, "from 0 to 4"
        )
        require(
            0 <= self.propensity_power <= 4, "training.propensity_power", self.propensity_power, "from 0 to 4"
        )
        require(0 <= self.gbce_t <= 1, "training.gbce_t", self.gbce_t, "from 0 to 1")
        require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "above 0")
        require(
            all(0 <= b < 1 for b in self.betas), "training.betas", self.betas, "two numbers from 0 to below 1"
        )
        require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_steps >= 0, "training.warmup_steps", self.warmup_steps, "0 or more")
        require(self.gradient_clip >= 0, "training.gradient_clip", self.gradient_clip, "0 or more")
        require(
            0 <= self.label_smoothing < 1,
            "training.label_smoothing",
            self.label_smoothing,
            "at least 0 and below 1",
        )
        require(
            self.label_smoothing == 0 or self.loss not in ("gbce", "bce", "bpr", "shown"),
            "training.label_smoothing",
            self.label_smoothing,
            f"0 with training.loss = {self.loss!r}, whose targets are not a distribution",
        )
        require(
            not self.shard_items or self.loss != "shown",
            "training.loss",
            self.loss,
            "another loss where training.shard_items = true",
        )
        require(self.temperature > 0, "training.temperature", self.temperature, "above 0")
        require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "at least 0 and below 1")
        require(
            _SELECTION.fullmatch(self.select) is not None,
            "training.select",
            self.select,
            "hr, recall, ndcg or mrr at a cut-off, for example ndcg@10",
        )
        require(0 <= self.substitute < 1, "training.substitute", self.substitute, "at least 0 and below 1")
        require(self.patience >= 1, "training.patience", self.patience, "1 or more")
        require(self.evaluate_every >= 1, "training.evaluate_every", self.evaluate_every, "1 or more")
        require(self.validation_users >= 1, "training.validation_users", self.validation_users, "1 or more")

    @property
    def selection_cutoff(self) -> int:
        """The cut-off of `select`."""
        return int(self.select.partition("@")[2])
