"""What came with events, at the input, and what is known of the request, at the output: rows of small tables.

    x_j = e_{i_j} + sum over event columns f of M_f[code of f at event j]
    state_t = h_t + sum over request columns f of Q_f[code of f of the request]

What is known of a user is read at both: x_1 of a sequence has the rows of a table more, each state those of
another. Codes of events and of requests both end with the user's.

Code 0, a value that is missing or unknown, has a row of its own, which starts at zero and learns from the
histories and requests whose columns training leaves out (``column_dropout``).

The column `LOCAL_HOUR` is none of the data's: its codes are the hours of local times, of an event's own and
of the request's.

The next event's own columns are never read but for its request columns, which are known before it happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.errors import ArgumentError, ConfigError
from recsys.kernels.bags import bag_vectors
from recsys.kernels.clock.circle import DAY

__all__ = ["HOURS", "LOCAL_HOUR", "ColumnInputs", "ColumnRows", "columns_read", "hour_codes"]

LOCAL_HOUR = "local_hour"
"""The column that local times give."""

HOURS = 25
"""Its codes: that of none, and 24."""

DEVIATION = 0.02
"""Of the rows, as of item vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInputs:
    """The columns of a prepared dataset.

    Attributes:
        events: names and numbers of codes of the columns of what came with an event, in the data's order.
        requests: likewise of what is known when an answer is asked for.
        digest: hex sha256 of what the codes mean.
        users: likewise of what is known of users.
    """

    events: tuple[tuple[str, int], ...]
    requests: tuple[tuple[str, int], ...]
    digest: str
    users: tuple[tuple[str, int], ...] = ()


def hour_codes(local_times: Tensor | None) -> Tensor | None:
    """(n, 1) int64 codes of the hours of local seconds (n,); None where they are not known."""
    return None if local_times is None else (local_times.remainder(DAY) // 3600 + 1)[:, None]


class ColumnRows(nn.Module):
    """Rows of the codes of several columns, added.

    Args:
        sizes: number of codes of each column of the data.
        places: which of these columns are read.
        width: D.
        generator: of the rows.
    """

    places: Tensor
    starts: Tensor

    def __init__(
        self, sizes: Sequence[int], places: Sequence[int], width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.n_columns = len(sizes)
        chosen = torch.tensor([sizes[place] for place in places], dtype=torch.int64)
        starts = chosen.cumsum(0) - chosen
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64), persistent=False)
        self.register_buffer("starts", starts, persistent=False)
        drawn = torch.empty(int(chosen.sum()), width).normal_(0.0, DEVIATION, generator=generator)
        drawn[starts] = 0
        self.weight = nn.Parameter(drawn)

    def forward(self, codes: Tensor | None, n: int) -> Tensor:
        """(n, D) sums of rows.

        Args:
            codes: (n, columns of the data) int64; None where all are missing.
            n: how many.

        Raises:
            ArgumentError: not a code for each column of the data.
        """
        read = len(self.places)
        if codes is None:
            rows = self.starts.expand(n, read)
        elif codes.shape != (n, self.n_columns):
            raise ArgumentError(
                f"codes of shape {tuple(codes.shape)}: give {n} rows of {self.n_columns} columns"
            )
        else:
            rows = codes.index_select(1, self.places) + self.starts
        offsets = torch.arange(0, n * read + 1, read, device=self.weight.device)
        return bag_vectors(self.weight, offsets, rows.reshape(-1))


def columns_read(
    wanted: Sequence[str],
    known: Sequence[tuple[str, int]],
    width: int,
    generator: torch.Generator,
    *,
    setting: str,
    option: str,
    before: Sequence[tuple[str, int]] = (),
    behind: Sequence[tuple[str, int]] = (),
) -> ColumnRows | None:
    """Rows of the columns that a setting names; None where it names none.

    Args:
        wanted: their names.
        known: names and numbers of codes of the data's columns.
        width: D.
        generator: of the rows.
        setting: that names them, for messages.
        option: of a preparation that keeps such columns, likewise.
        before: names and numbers of codes of columns of another kind that stand before them.
        behind: of those that stand behind them.

    Raises:
        ConfigError: the data have no such column.
    """
    if not wanted:
        return None
    names = [name for name, _ in known]
    for name in wanted:
        if name not in names:
            kept = f"{', '.join(names)}: name one of these, or" if names else "none:"
            raise ConfigError(
                f"{setting} names {name!r} and the data keep {kept} prepare the log with "
                f"{option}={','.join(wanted)}"
            )
    places = [len(before) + names.index(name) for name in wanted]
    return ColumnRows([size for _, size in (*before, *known, *behind)], places, width, generator)
