"""What an encoder reads of columns: of events, of requests, of users."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from recsys.encoders.configuration import EncoderConfig
from recsys.encoders.encoder_items import EncoderItems
from recsys.encoders.event_columns import (
    HOURS,
    LOCAL_HOUR,
    ColumnInputs,
    ColumnRows,
    columns_read,
    hour_codes,
)
from recsys.errors import ConfigError
from recsys.jagged import SequenceBatch

__all__ = ["EncoderColumns"]

Known = Sequence[tuple[str, int]]


class EncoderColumns(EncoderItems):
    """The tables of an encoder's columns; see :mod:`recsys.encoders.event_columns`."""

    reads_columns: ClassVar[bool] = False
    reads_users: ClassVar[bool] = False

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__(config, n_items)
        self.event_columns: ColumnRows | None = None
        self.request_columns: ColumnRows | None = None
        self.user_input: ColumnRows | None = None
        self.user_output: ColumnRows | None = None
        self.hour_input: ColumnRows | None = None
        self.hour_output: ColumnRows | None = None
        self.n_user_codes = 0
        """Columns of users among the data's, whose codes stand behind those of events and of requests."""
        self._columns_digest: str | None = None

    def set_columns(self, inputs: ColumnInputs | None, generator: torch.Generator) -> None:
        """Let the columns be read that the configuration names; once, after the weights are drawn.

        Args:
            inputs: the columns of the data; None where they keep none.
            generator: of the weights that come with them.

        Raises:
            ConfigError: the data keep no such column, the encoder reads none of events, or the hour is to be
                one of users.
        """
        config = self.config
        if config.event_columns and not self.reads_columns:
            raise ConfigError(
                f"encoder.event_columns: {type(self).__name__} reads no columns of events; leave it out"
            )
        if config.user_columns and not self.reads_users:
            raise ConfigError(
                f"encoder.user_columns: {type(self).__name__} reads no columns of users; leave it out"
            )
        if LOCAL_HOUR in config.user_columns:
            raise ConfigError(
                f"encoder.user_columns names {LOCAL_HOUR!r}, the hour of events and of requests: name it in "
                "encoder.event_columns or encoder.request_columns"
            )
        events, requests, users = (
            ((), (), ()) if inputs is None else (inputs.events, inputs.requests, inputs.users)
        )

        def read(kind: str, known: Known, before: Known = (), behind: Known = ()) -> ColumnRows | None:
            return columns_read(
                [name for name in getattr(config, kind) if name != LOCAL_HOUR],
                known,
                config.d_model,
                generator,
                setting=f"encoder.{kind}",
                option=kind,
                before=before,
                behind=behind,
            )

        self.event_columns = read("event_columns", events, behind=users)
        self.request_columns = read("request_columns", requests, behind=users)
        self.user_input = read("user_columns", users, before=events)
        self.user_output = read("user_columns", users, before=requests)
        self.n_user_codes = len(users)
        if LOCAL_HOUR in config.event_columns:
            self.hour_input = ColumnRows([HOURS], [0], config.d_model, generator)
        if LOCAL_HOUR in config.request_columns:
            self.hour_output = ColumnRows([HOURS], [0], config.d_model, generator)
        if inputs is not None and (self.n_event_codes or self.n_request_codes):
            self._columns_digest = inputs.digest

    @property
    def told_of_events(self) -> tuple[str, ...]:
        """Names of the columns that whoever hands in events says something of."""
        return tuple(name for name in self.config.event_columns if name != LOCAL_HOUR)

    @property
    def told_of_requests(self) -> tuple[str, ...]:
        """Names of the columns that whoever asks says something of."""
        names = dict.fromkeys((*self.config.request_columns, *self.config.user_columns))
        return tuple(name for name in names if name != LOCAL_HOUR)

    @property
    def reads_event_hours(self) -> bool:
        """Whether the hour of an event is a column at the input."""
        return self.hour_input is not None

    @property
    def reads_hour_columns(self) -> bool:
        """Whether the hour of an event or of the request is a column."""
        return self.hour_input is not None or self.hour_output is not None

    @property
    def columns_digest(self) -> str | None:
        """Of what the codes of its columns mean; None where it reads none."""
        return self._columns_digest

    @property
    def n_event_codes(self) -> int:
        """Codes that a batch has for each event, its user's among them; 0 where none is read."""
        return max(0 if rows is None else rows.n_columns for rows in (self.event_columns, self.user_input))

    @property
    def n_request_codes(self) -> int:
        """Codes that are given for each request, its user's among them; 0 where none is read."""
        return max(0 if rows is None else rows.n_columns for rows in (self.request_columns, self.user_output))

    def requested(self, hidden: Tensor, codes: Tensor | None, asked: Tensor | None = None) -> Tensor:
        """States with what is known of their requests.

        Args:
            hidden: (n, D) states.
            codes: (n, R) int64 codes of the requests' columns; None where nothing is known.
            asked: (n,) int64 local seconds at which they are asked; None leaves the hour out.
        """
        for rows, known in (
            (self.request_columns, codes),
            (self.user_output, codes),
            (self.hour_output, hour_codes(asked)),
        ):
            if rows is not None:
                added: Tensor = rows(known, len(hidden))
                hidden = hidden + added.to(hidden.dtype)
        return hidden

    def columns_at_input(self, batch: SequenceBatch) -> Tensor | None:
        """(N, D) rows of events' columns, and at first events those of users; None where none is read."""
        found: Tensor | None = None
        if self.event_columns is not None:
            found = self.event_columns(batch.event_codes, batch.n_events)
        if self.hour_input is not None:
            hours = hour_codes(batch.local_times)
            if hours is not None:  # of a masked event nothing that came with it is read
                hours = hours.masked_fill(self.is_mask(batch.items)[:, None], 0)
            at_hour: Tensor = self.hour_input(hours, batch.n_events)
            found = at_hour if found is None else found + at_hour
        if self.user_input is None:
            return found
        first = batch.first_rows()
        codes = None if batch.event_codes is None else batch.event_codes[first]
        known: Tensor = self.user_input(codes, len(first))
        if found is None:
            found = known.new_zeros(batch.n_events, known.shape[1])
        return found.index_add(0, first, known)

    def is_mask(self, items: Tensor) -> Tensor:
        """(n,) bool, which items are mask tokens."""
        return (items >= self.n_items) & (items < self.n_items + self.n_extra_items)

    def columns_at_step(
        self, n: int, local_times: Tensor | None, codes: Tensor | None, first: Tensor | None
    ) -> Tensor | None:
        """(n, D) the same for one event of each of n users, of whom (n,) bool says whose is the first."""
        found: Tensor | None = None
        if self.event_columns is not None:
            found = self.event_columns(codes, n)
        if self.hour_input is not None:
            at_hour: Tensor = self.hour_input(hour_codes(local_times), n)
            found = at_hour if found is None else found + at_hour
        if self.user_input is None or first is None:
            return found
        known: Tensor = self.user_input(codes, n) * first[:, None]
        return known if found is None else found + known
