"""What every encoder is: packed events in, one hidden state per event out, and a state to stream with."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recsys.config import require
from recsys.encoders.clock import NO_LOCAL_TIMES, ClockedState, HourHead, InterestClock, UserMemory
from recsys.encoders.configuration import EncoderConfig, make_norm
from recsys.encoders.encoder_columns import EncoderColumns
from recsys.encoders.item_sum import ItemSum, SummedState
from recsys.encoders.items import HashedItemEmbedding, ItemEmbedding, ShardedItemEmbedding
from recsys.encoders.occurrence_bias import OccurrenceBias
from recsys.encoders.repeat_bias import RepeatBias
from recsys.encoders.streams import step_through
from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch

__all__ = ["EncoderConfig", "SequenceEncoder", "make_norm"]

NO_CLOCK_TO_READ = "encoder.clock is not 'pool': there is no clock to read at another hour"


class SequenceEncoder(EncoderColumns, ABC):
    """Base class of encoders: an item table and a map from packed events to hidden states.

    A hidden state scores the catalog by inner product with :attr:`item_weight`, so that training,
    ranking and nearest-neighbour search use one table. :attr:`repeat_bias`, if there is one, is added to the
    scores of items that the window holds.

    An encoder of one's own implements :meth:`encode`, :meth:`encode_start` and :meth:`encode_step`; the item
    sum and the clock that the configuration asks for are added to what they give, by :meth:`forward`,
    :meth:`initial_state` and :meth:`step`. One that adds :meth:`hours_of_events` to its input has the hour
    baseline, too; one that adds :meth:`added_to_input`, and at a step :meth:`added_at_step`, reads columns of
    events as well, and says so by :attr:`reads_columns`; and columns of users, if it tells ``added_at_step``
    whose event is the first, by :attr:`reads_users`.

    Attributes:
        causal: True when the state of an event depends on no later event. Causal encoders train on the
            next item, others by Cloze.
        n_extra_items: rows of the item table beyond the catalog (BERT4Rec's mask token).
        no_click: (1,) score of taking nothing of what was shown; None where none is learned.
        reads_columns: whether it adds what came with events to its input, and takes ``columns`` at a step.
    """

    causal: ClassVar[bool]

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        require(n_items >= 1, "n_items", n_items, "at least 1")
        super().__init__(config, n_items)
        self.repeat_bias: RepeatBias | OccurrenceBias | None = None
        if config.repeat_bias and config.repeat_by == "last":
            self.repeat_bias = RepeatBias(config.repeat_bias)
        elif config.repeat_bias:
            self.repeat_bias = OccurrenceBias(config.repeat_bias, clock=config.repeat_by == "clock")
        self.no_click = nn.Parameter(torch.zeros(1)) if config.no_click else None
        self.item_sum: ItemSum | None = None
        if config.item_sum:
            self.item_sum = ItemSum(config.d_model, n_items, config.max_length, self.n_extra_items)
        self.clock: InterestClock | None = None
        self.hours: HourHead | None = None
        if config.clock == "pool":
            self.clock = InterestClock(
                config.d_model, n_items, config.max_length, config.clock_half_life, self.n_extra_items
            )
        elif config.clock == "hours":
            self.hours = HourHead(config.d_model)

    @property
    def history_length(self) -> int:
        """Most recent events of a user that :meth:`user_state` takes."""
        return int(self.config.max_length)

    def looks_back(self, generator: torch.Generator | None) -> bool:
        """Whether a pass with this source of dropout attends to earlier events alone."""
        return self.causal

    @property
    def needs_timestamps(self) -> bool:
        """Whether every event must come with its time."""
        return False

    @property
    def needs_local_times(self) -> bool:
        """Whether every event must come with its local time, which takes a time zone."""
        return str(self.config.clock) != "off" or self.bias_reads_clock or self.reads_hour_columns

    @property
    def bias_reads_clock(self) -> bool:
        """Whether the bias of items in a window depends on local times."""
        return self.repeat_bias is not None and self.repeat_bias.reads_clock

    @property
    def reads_request_time(self) -> bool:
        """Whether the moment at which an answer is wanted changes it."""
        return self.needs_local_times

    @property
    def encodes_request_time(self) -> bool:
        """Whether the network itself reads that moment, so that another one takes another pass."""
        return self.hours is not None or self.hour_output is not None

    @property
    def reads_event_hours(self) -> bool:
        """Whether the hour of every event is read at the input."""
        return self.hours is not None or super().reads_event_hours

    @abstractmethod
    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """States (N, D) of packed sequences, nothing added; arguments as in :meth:`forward`."""

    @abstractmethod
    def encode_start(self, n: int) -> Any:
        """The encoder's own streaming state of ``n`` users without history."""

    @abstractmethod
    def encode_step(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """One more event of each of the n users, nothing added; arguments as in :meth:`step`."""

    def encode_prefill(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        """What the encoder's own steps through sequences give: (B, D) last states, streaming state.

        By default it is made by steps. An encoder that makes it at once has states that
        :mod:`recsys.encoders.streams` joins and takes apart, and is asked for many users together.
        """
        return step_through(self, batch)

    @property
    def prefills(self) -> bool:
        """Whether :meth:`prefill` costs one encoding, not a step for every event."""
        return type(self).encode_prefill is not SequenceEncoder.encode_prefill

    def forward(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode packed sequences: the encoder's own states, and the clock's part at each query time.

        Args:
            batch: N events of B sequences, none longer than ``config.max_length``.
            generator: source of dropout in training mode; the same state gives the same masks.

        Returns:
            (N, D) hidden state after each event.

        Raises:
            ArgumentError: an encoder with a clock is given events without local times.
        """
        hidden = self.encode(batch, generator=generator)
        if self.item_sum is not None:
            sums = self.item_sum.sums(batch, self.item_embedding(batch.items))
            hidden = self.item_sum.add(hidden, sums, self.config.dropout, generator)
        if self.clock is not None:
            hidden = self.clock(hidden, batch, self.item_embedding(batch.items))
        elif self.hours is not None:
            hidden = hidden + self.hours.at_output(batch).to(hidden.dtype)
        states: Tensor = self.requested(hidden, batch.request_codes, batch.query_times)
        return states

    def user_state(
        self,
        batch: SequenceBatch,
        *,
        at: Tensor | None = None,
        local_at: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """(B, D) the state that scores what comes next for each sequence; no sequence may be empty.

        Args:
            batch: histories.
            at: (B,) int64 unix seconds at which each answer is wanted; None is the last event's time. Read
                by an encoder whose query is a token with a time of its own, BERT4Rec's mask.
            local_at: (B,) int64 local seconds of the same, read by a clock.
            context: (B, R) int64 codes of what is known of each request; None where nothing is.
        """
        if local_at is not None and self.needs_local_times:
            batch = batch.asked_at(local_at)
        batch = batch.asked_in(context)
        return self.forward(batch)[batch.last_rows()]

    def remember(self, batch: SequenceBatch) -> UserMemory:
        """What is needed to answer the B users at any hour without encoding their histories again.

        Args:
            batch: histories with local times; none may be empty.

        Raises:
            ArgumentError: the encoder has no interest clock, so that no hour changes its answers this way.
        """
        if self.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)
        hidden, _ = self._with_sums(self._last_states(batch), batch)
        return self.clock.remember(hidden, batch, self.item_embedding(batch.items))

    def recall(
        self, memory: UserMemory, local_at: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """(n, D) states of remembered users asked at local times (n,); None is their last events' times.

        Args:
            memory: of n users.
            local_at: (n,) int64 local seconds.
            context: (n, R) int64 codes of what is known of each request; None where nothing is.
        """
        if self.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)
        asked = memory.times if local_at is None else local_at
        return self.requested(self.clock.read(memory, local_at), context, asked)

    def _last_states(self, batch: SequenceBatch) -> Tensor:
        """(B, D) what `user_state` gives, without the item sum and the clock."""
        return self.encode(batch)[batch.last_rows()]

    def hours_of_events(self, batch: SequenceBatch) -> Tensor | None:
        """(N, D) vectors of the events' hours to add to the input; None but for the hour baseline."""
        if self.hours is None:
            return None
        return self.hours.at_input(batch, self.is_mask(batch.items))

    def added_to_input(self, batch: SequenceBatch) -> Tensor | None:
        """(N, D) to add to the events' item vectors: their hours and columns; None where neither is read."""
        hours, columns = self.hours_of_events(batch), self.columns_at_input(batch)
        return columns if hours is None else hours if columns is None else columns + hours

    def added_at_step(
        self, n: int, local_times: Tensor | None, columns: Tensor | None, first: Tensor | None = None
    ) -> Tensor | None:
        """(n, D) the same for one event of each of n users.

        Args:
            n: users.
            local_times: (n,) int64 local seconds, where hours are read.
            columns: (n, E) int64 codes of what came with the events and is known of the users, or None.
            first: (n,) bool, whose event is the first of its sequence; read where columns of users are.
        """
        hours = None
        if self.hours is not None and local_times is not None:
            hours = self.hours.of_events(local_times)
        known = self.columns_at_step(n, local_times, columns, first)
        return known if hours is None else hours if known is None else known + hours

    def _with_sums(self, hidden: Tensor, batch: SequenceBatch) -> tuple[Tensor, Tensor | None]:
        """Last states (B, D) with the item sums, and these; as they are where nothing is summed."""
        if self.item_sum is None:
            return hidden, None
        sums = self.item_sum.sums(batch, self.item_embedding(batch.items))[batch.last_rows()]
        return self.item_sum.add(hidden, sums), sums

    def _prefill(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        """`encode_prefill` with the item sums."""
        hidden, own = self.encode_prefill(batch)
        hidden, sums = self._with_sums(hidden, batch)
        return hidden, own if sums is None else SummedState(own, sums)

    def _step(self, state: Any, items: Tensor, *times: Tensor | None, columns: Tensor | None) -> Any:
        """One more event of each of the n users: their states with the item sums, and the new state."""
        if self.item_sum is None:
            return self._step_own(state, items, *times, columns=columns)
        hidden, own = self._step_own(state.own, items, *times, columns=columns)
        sums = self.item_sum.step(state.sums, items, self.item_embedding(items))
        return self.item_sum.add(hidden, sums), SummedState(own, sums)

    def _step_own(self, state: Any, items: Tensor, *times: Tensor | None, columns: Tensor | None) -> Any:
        """`encode_step`, which is told of columns where they are read."""
        if not self.n_event_codes:
            return self.encode_step(state, items, *times)
        return self.encode_step(state, items, *times, columns=columns)  # type: ignore[call-arg]

    def initial_state(self, n: int) -> Any:
        """The streaming state of ``n`` users without history; all sums are part of it."""
        own = self.encode_start(n)
        if self.item_sum is not None:
            own = SummedState(own, self.item_sum.initial_state(n))
        return own if self.clock is None else ClockedState(own, self.clock.initial_state(n))

    def step(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        *,
        local_times: Tensor | None = None,
        local_at: Tensor | None = None,
        columns: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Take one more event of each of the n users of ``state``.

        Args:
            state: from :meth:`initial_state` or an earlier step; it is not to be used again afterwards.
            items: (n,) int64 item indices.
            timestamps: (n,) int64 unix seconds, for encoders that read the time.
            local_times: (n,) int64 local seconds, for encoders with a clock.
            local_at: (n,) int64 local seconds at which the states are asked for; None is ``local_times``.
            columns: (n, E) int64 codes of what came with the events, behind them those of the users; None
                where nothing is known.
            context: (n, R) int64 codes of what is known of the requests, behind them those of the users;
                None where nothing is.

        Returns:
            (n, D) what :meth:`user_state` gives for the history so far, and the new state. The clock and
            the item sum keep summing where a window moves on: past ``max_length`` events they know more than
            the window does.

        Raises:
            ArgumentError: an encoder with a clock is given no local times.
        """
        if self.clock is not None:
            memory, new = self.step_memory(state, items, timestamps, local_times=local_times, columns=columns)
            return self.recall(memory, local_at, context), new
        if self.hours is None and not self.reads_hour_columns:
            hidden, own = self._step(state, items, timestamps, columns=columns)
            return self.requested(hidden, context), own
        if local_times is None:
            raise ArgumentError(NO_LOCAL_TIMES)
        asked = local_times if local_at is None else local_at
        hidden, own = self._step(state, items, timestamps, local_times, asked, columns=columns)
        if self.hours is not None:
            hidden = hidden + self.hours.of_requests(asked)
        return self.requested(hidden, context, asked), own

    def step_memory(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        *,
        local_times: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> tuple[UserMemory, Any]:
        """Take one more event of each user as :meth:`step` does, for answers at any hour by :meth:`recall`.

        Args:
            state: as for :meth:`step`.
            items: (n,) int64 item indices.
            timestamps: (n,) int64 unix seconds, for encoders that read the time.
            local_times: (n,) int64 local seconds.
            columns: (n, E) int64 codes of what came with the events; None where nothing is known.

        Returns:
            What :meth:`remember` gives for the histories so far, and the new state.

        Raises:
            ArgumentError: the encoder has no interest clock, or there are no local times.
        """
        if self.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)
        if local_times is None:
            raise ArgumentError(NO_LOCAL_TIMES)
        hours = (local_times, local_times) if self.reads_event_hours else ()
        hidden, own = self._step(state.own, items, timestamps, *hours, columns=columns)
        sums = self.clock.step(state.sums, items, self.item_embedding(items), local_times)
        return UserMemory(hidden, sums, local_times), ClockedState(own, sums)

    def prefill(self, batch: SequenceBatch, *, context: Tensor | None = None) -> tuple[Tensor, Any]:
        """Begin streams with whole histories.

        Args:
            batch: B histories of at most :attr:`history_length` events; none may be empty.
            context: (B, R) int64 codes of what is known of the requests; None where nothing is.

        Returns:
            (B, D) what :meth:`user_state` gives, and the state that steps through the histories lead to.

        Raises:
            ArgumentError: a history is empty or too long, or times that the encoder reads are missing.
        """
        if self.clock is not None:
            memory, state = self.prefill_memory(batch)
            return self.recall(memory, context=context), state
        if self.hours is None and not self.reads_hour_columns:
            hidden, own = self._prefill(batch)
            return self.requested(hidden, context), own
        if batch.local_times is None:
            raise ArgumentError(NO_LOCAL_TIMES)
        hidden, own = self._prefill(batch)
        asked = batch.local_times[batch.last_rows()]
        if self.hours is not None:
            hidden = hidden + self.hours.of_requests(asked)
        return self.requested(hidden, context, asked), own

    def prefill_memory(self, batch: SequenceBatch) -> tuple[UserMemory, Any]:
        """The same for answers at any hour: what :meth:`remember` gives, and the streaming state.

        Raises:
            ArgumentError: as :meth:`prefill`, or the encoder has no interest clock.
        """
        if self.clock is None:
            raise ArgumentError(NO_CLOCK_TO_READ)
        hidden, own = self._prefill(batch)
        memory = self.clock.remember(hidden, batch, self.item_embedding(batch.items))
        return memory, ClockedState(own, memory.clock)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights from ``generator``: normal with deviation 0.02, biases zero, norms one.

        0.02 is BERT's and Mamba4Rec's. Encoders with parameters of another kind extend this.
        """
        for module in self.modules():
            if isinstance(module, ItemEmbedding | HashedItemEmbedding | ShardedItemEmbedding):
                module.initialize(generator)
            elif isinstance(module, nn.Linear | nn.Embedding):
                with torch.no_grad():
                    module.weight.normal_(0.0, 0.02, generator=generator)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        module.bias.zero_()
        if self.repeat_bias is not None:
            nn.init.zeros_(self.repeat_bias.weight)
        if self.clock is not None:
            self.clock.initialize()
