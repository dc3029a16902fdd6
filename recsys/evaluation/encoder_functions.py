"""What evaluation asks of an encoder over a log: states at the time of the request, and the window's bias."""

from typing import Any

from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.window_bias import WindowBias
from recsys.evaluation.log_states import log_states, log_windows
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets
from recsys.evaluation.window_bias import BiasFunction


def hidden_function(encoder: SequenceEncoder, store: SequenceStore) -> Any:
    """What `evaluate_hidden` asks for states: each at the time of the first event that is to be predicted."""

    def hidden(rows: Ints, targets: EvaluationTargets) -> Tensor:
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        return log_states(encoder, store, starts, ends, asked=targets.request_position[rows])

    return hidden


def bias_function(encoder: SequenceEncoder, store: SequenceStore) -> BiasFunction | None:
    """What `evaluate_hidden` asks for the biases of items in windows; None for an encoder without."""
    if encoder.repeat_bias is None:
        return None

    def bias(rows: Ints, targets: EvaluationTargets) -> WindowBias:
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        return log_windows(encoder, store, starts, ends, asked=targets.request_position[rows])

    return bias
