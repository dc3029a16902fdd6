"""What an encoder is trained to predict: the next item (causal encoders) or hidden items (Cloze).

Both say which rows carry a target, so that linear cross-entropy sees only those.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.clock import NO_LOCAL_TIMES
from recsys.encoders.occurrence_bias import OccurrenceBias
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.kernels.repeats import Occurrences, RepeatLayout


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One batch as the encoder is to see it.

    Attributes:
        batch: the input; for Cloze some items are the mask token.
        rows: (M,) int64 rows of ``batch`` whose hidden state predicts a target; None for all of them.
        targets: (M,) int64 item indices.
        weights: (M,) float32 above 0, how much each target counts; None where all count alike.
        repeats: where the windows' items stand to the targets, for an encoder with a repeat bias.
    """

    batch: SequenceBatch
    rows: Tensor | None
    targets: Tensor
    weights: Tensor | None = None
    repeats: RepeatLayout | None = None

    @property
    def n_targets(self) -> int:
        """M, the events supervised."""
        return int(self.targets.shape[0])

    @property
    def total_weight(self) -> float:
        """What all targets together count; their number where all count alike."""
        return self.n_targets if self.weights is None else float(self.weights.double().sum())


@dataclass(frozen=True, slots=True, eq=False)
class Further:
    """Targets of a next-item task that are no events of its batch.

    Attributes:
        rows: (n,) int64 input rows whose states predict them.
        targets: (n,) int64 item indices.
        weights: (n,) float32 how much each counts; None where all count alike.
    """

    rows: Tensor
    targets: Tensor
    weights: Tensor | None = None


def make_task(
    encoder: SequenceEncoder,
    batch: SequenceBatch,
    rng: np.random.Generator,
    further: Further | None = None,
) -> Task:
    """The training task of ``encoder`` on a batch: next item if it is causal, else Cloze.

    Args:
        encoder: to be trained.
        batch: packed sequences.
        rng: source of what is random in the task.
        further: targets of a causal encoder that are no events of the batch.
    """
    if encoder.causal:
        task = next_item(batch)
        task = task if further is None else with_further(task, further)
    else:
        task = cloze(
            batch,
            encoder.n_items,
            rng,
            mask_probability=encoder.config.mask_probability,
            last_mask_probability=encoder.config.last_mask_probability,
            n_user_codes=encoder.n_user_codes,
        )
    # Drawn last, so that everything else is as it would be without columns.
    users = encoder.n_user_codes
    if encoder.n_event_codes or encoder.n_request_codes:
        share = encoder.config.column_dropout
        task = replace(task, batch=without_columns(task.batch, rng, share, n_user_codes=users))
    if encoder.user_input is not None:
        share = encoder.config.user_column_dropout
        task = replace(task, batch=without_users(task.batch, rng, share, n_user_codes=users))
    return task if encoder.repeat_bias is None else replace(task, repeats=_repeats(task, encoder))


def _repeats(task: Task, encoder: SequenceEncoder) -> RepeatLayout:
    """Lay out a task's windows; the place of a target is its own if it is masked, else behind its row."""
    items, lengths = task.batch.items.numpy(), task.batch.lengths
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    places = task.batch.positions().numpy() + int(encoder.causal)
    if task.rows is not None:
        rows = task.rows.numpy()
        sequence, places = sequence[rows], places[rows]
    visible = items != encoder.n_items
    layout = RepeatLayout.of(items, lengths, visible, sequence, places, task.targets.numpy())
    if not isinstance(encoder.repeat_bias, OccurrenceBias):
        return layout
    own = asked = None
    if encoder.repeat_bias.reads_clock:
        own, asked = task.batch.local_times, task.batch.query_times
        if own is None or asked is None:
            raise ArgumentError(NO_LOCAL_TIMES)
        asked = asked if task.rows is None else asked[task.rows]
    layout = replace(layout, occurrences=Occurrences.of(items, lengths, visible, own, asked))
    # Here, where batches are made ahead, rather than on their way to the device.
    return layout if encoder.repeat_bias.weight.device.type == "cpu" else layout.with_runs()


def next_item(batch: SequenceBatch) -> Task:
    """Every event but a sequence's last predicts its successor (SASRec's shifted sequence).

    The last event only serves as a target, so the encoder does not see it at all. Each state is asked for at
    the local time of the event it is to predict, and by its request columns, which a request knows as its
    own; nothing else of that event is read. An event that is context alone is read and not predicted.
    """
    rows = batch.next_item_rows()
    shortened = (batch.lengths - 1).clip(min=0)
    offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(shortened))).astype(np.int32))
    times = None if batch.timestamps is None else batch.timestamps[rows]
    local = None if batch.local_times is None else batch.local_times[rows]
    asked = None if batch.local_times is None else batch.local_times[rows + 1]
    offsets = offsets.to(batch.offsets.device)
    codes = None if batch.event_codes is None else batch.event_codes[rows]
    requests = None if batch.request_codes is None else batch.request_codes[rows + 1]
    inputs = SequenceBatch(batch.items[rows], offsets, shortened, times, local, asked, codes, requests)
    targets = batch.items[rows + 1]
    if batch.weights is None:
        return Task(inputs, None, targets)
    weights = batch.weights[rows + 1]
    counted = (weights > 0).nonzero()[:, 0]
    if len(counted) == len(targets):
        return Task(inputs, None, targets, weights)
    return Task(inputs, counted, targets[counted], weights[counted])


def with_further(task: Task, further: Further) -> Task:
    """A next-item task with targets that are no events of its batch behind its own."""
    rows = torch.arange(len(task.targets)) if task.rows is None else task.rows
    if task.weights is None and further.weights is None:
        weights = None
    else:
        parts = ((task.targets, task.weights), (further.targets, further.weights))
        weights = torch.cat([torch.ones(len(of)) if own is None else own for of, own in parts])
    return replace(
        task,
        rows=torch.cat((rows, further.rows)),
        targets=torch.cat((task.targets, further.targets)),
        weights=weights,
    )


def cloze(
    batch: SequenceBatch,
    mask_item: int,
    rng: np.random.Generator,
    *,
    mask_probability: float,
    last_mask_probability: float,
    n_user_codes: int = 0,
) -> Task:
    """Hide events and predict them (BERT4Rec, section 3.5).

    Of a sequence of n events, max(1, round(n * mask_probability)) are hidden at random; with
    ``last_mask_probability`` only the last one is, as at inference. A hidden event keeps its time, at which
    its state is asked for, and what was known before it; what came with it is hidden, too. Events that are
    context alone are not counted and never hidden.

    Args:
        batch: packed sequences.
        mask_item: index of the mask token.
        rng: source of the choice.
        mask_probability: share of events hidden.
        last_mask_probability: share of sequences of which only the last event is hidden.
        n_user_codes: codes of events that are their user's, the last ones, which are not hidden.
    """
    lengths = batch.lengths
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    # Rank of each event in a random order of its own sequence: the first `count` are hidden.
    counted = np.ones(len(sequence), dtype=bool)
    if batch.weights is not None:
        counted = (batch.weights > 0).numpy()
    order = np.lexsort((rng.random(len(sequence)), ~counted, sequence))
    rank = np.empty(len(sequence), dtype=np.int64)
    rank[order] = np.arange(len(sequence)) - starts[sequence]
    n_counted = np.bincount(sequence[counted], minlength=len(lengths))
    count = np.maximum(1, np.rint(n_counted * mask_probability)).astype(np.int64)
    hidden = (rank < count[sequence]) & counted
    last_only = (rng.random(len(lengths)) < last_mask_probability)[sequence]
    last = np.full(len(lengths), -1)
    np.maximum.at(last, sequence[counted], np.flatnonzero(counted))
    hidden = np.where(last_only, np.arange(len(sequence)) == last[sequence], hidden)

    rows = torch.from_numpy(np.flatnonzero(hidden)).to(batch.items.device)
    items = batch.items.clone()
    targets = items[rows]
    items[rows] = mask_item
    inputs, weights = batch.with_items(items), batch.weights
    if batch.event_codes is not None:
        codes = batch.event_codes.clone()
        codes[rows, : codes.shape[1] - n_user_codes] = 0
        inputs = replace(inputs, event_codes=codes)
    return Task(inputs, rows, targets, None if weights is None else weights[rows])


def without_columns(
    batch: SequenceBatch, rng: np.random.Generator, share: float, *, n_user_codes: int = 0
) -> SequenceBatch:
    """A batch of which some sequences' events, and some sequences' requests, are known by nothing.

    Args:
        batch: packed sequences.
        rng: source of the choice.
        share: of the sequences, drawn apart for events and requests.
        n_user_codes: codes that are the user's, the last ones, which stay.
    """
    left_out = rng.random((2, batch.batch_size)) < share
    events, requests = (torch.from_numpy(np.repeat(drawn, batch.lengths)) for drawn in left_out)
    codes, asked = batch.event_codes, batch.request_codes
    return replace(
        batch,
        event_codes=_blank(codes, events, slice(0, -n_user_codes or None)),
        request_codes=_blank(asked, requests, slice(0, -n_user_codes or None)),
    )


def without_users(
    batch: SequenceBatch, rng: np.random.Generator, share: float, *, n_user_codes: int
) -> SequenceBatch:
    """A batch of which some sequences' users are known by nothing.

    Args:
        batch: packed sequences.
        rng: source of the choice.
        share: of the sequences.
        n_user_codes: codes that are the user's, the last ones.
    """
    left_out = torch.from_numpy(np.repeat(rng.random(batch.batch_size) < share, batch.lengths))
    columns = slice(-n_user_codes, None)
    return replace(
        batch,
        event_codes=_blank(batch.event_codes, left_out, columns),
        request_codes=_blank(batch.request_codes, left_out, columns),
    )


def _blank(codes: Tensor | None, rows: Tensor, columns: slice) -> Tensor | None:
    """Codes of which some rows hold the missing one in some columns."""
    if codes is None:
        return None
    found = codes.clone()
    found[:, columns] = codes[:, columns].masked_fill(rows[:, None], 0)
    return found
