"""What a training batch is before it meets the encoder, and which data give any."""

from dataclasses import dataclass

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.times.local_times import require_local_times
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.event_columns import LOCAL_HOUR
from recsys.errors import ConfigError, DataError
from recsys.training.batches import target_counts
from recsys.training.losses import Negatives
from recsys.training.objectives import Task

__all__ = ["Prepared", "check_data"]

COUNTS = {1: "a training event", 2: "two training events"}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One batch on the host, with everything random that is to happen to it.

    Attributes:
        task: input and targets.
        negatives: of a sampled loss.
        seed: of dropout.
    """

    task: Task
    negatives: Negatives | None
    seed: int


def check_data(encoder: SequenceEncoder, store: SequenceStore) -> None:
    """Refuse data that lack what an encoder reads, or that nothing can be learned from.

    Raises:
        ConfigError: the encoder reads the time of every event and the log carries order alone, or it has a
            clock and the log has no local hours.
        DataError: no user has two training events, or none that counts can be predicted.
    """
    if encoder.needs_timestamps and not store.has_times:
        raise ConfigError(
            f"{store.path}: the log carries order alone and this encoder reads times; set "
            "encoder.time_bias = 0, or prepare a log with a timestamp column"
        )
    if encoder.needs_local_times:
        remedies = ["train without clock=True"] if encoder.config.clock != "off" else []
        if encoder.bias_reads_clock:
            remedies.append("set encoder.repeat_by = 'count'")
        if encoder.reads_hour_columns:
            remedies.append(f"leave {LOCAL_HOUR} out of the encoder's columns")
        require_local_times(store, " and ".join(remedies) or "choose another encoder")
    least = 2 if encoder.causal else 1
    if store.most_trained < least:
        raise DataError(f"{store.path}: no user has {COUNTS[least]}; nothing can be learned")
    weighted = store.event_weights is not None or store.event_targets is not None
    if weighted and not target_counts(store, lead=least - 1).any():
        raise DataError(
            f"{store.path}: no training event that counts can be predicted; prepare the log with another "
            "weight_column= or target_where="
        )
