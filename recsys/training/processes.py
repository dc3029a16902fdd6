"""The processes of one training: who they are, and what they exchange.

torchrun, Ray Train, SLURM and Kubeflow start the same command several times and say in the environment how
many there are (WORLD_SIZE), which one this is (RANK) and where they meet (MASTER_ADDR, MASTER_PORT). One
process exchanges nothing: `Processes` itself stands for it and loads nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recsys.errors import ConfigError

__all__ = ["ALONE", "Processes", "check_share", "joined", "launched"]


class Processes:
    """One process that trains alone, and what several do together (`ProcessGroup`).

    Every process calls the same methods in the same order; each returns when all have called it.

    Attributes:
        rank: which one this is, from 0; process 0 decides and writes.
        size: W, how many there are.
        device: where this one trains; None leaves it to the caller.
    """

    rank = 0
    size = 1
    device: torch.device | None = None

    def owners(self, size: int) -> list[int]:
        """The rank that has each of the ``size`` batches of a group, by their places: they are dealt out."""
        return [place % self.size for place in range(size)]

    def tell(self, value: Any) -> Any:
        """What process 0 says, in every process; the others' values are left aside.

        Args:
            value: whatever JSON holds.
        """
        return value

    def values(self, value: Any) -> list[Any]:
        """What every process says, by rank.

        Args:
            value: whatever JSON holds.
        """
        return [value]

    def gather(self, rows: Tensor, lengths: Sequence[int] | None = None) -> list[Tensor]:
        """The rows of every process, by rank, on the device of ``rows``.

        Args:
            rows: (n, ...) of this process; trailing sizes and type are the same in all.
            lengths: W numbers of rows where they are known; None exchanges them first.
        """
        return [rows]

    def exchange(self, parts: Sequence[Tensor], lengths: Sequence[int] | None = None) -> list[Tensor]:
        """Give each process its part and take the parts that they have for this one, by rank.

        Args:
            parts: W tensors (n_q, ...), the q-th for process q; trailing sizes and type are the same in all.
            lengths: W numbers of rows that come from each process, where they are known; None exchanges them
                first.
        """
        return list(parts)

    def add_disjoint(self, values: Tensor) -> Tensor:
        """The sum over processes of tensors that are zero where another one's are not: exact.

        Args:
            values: the same shape and type in all; not changed.
        """
        return values

    def in_order(self, own: Sequence[float], owners: Sequence[int]) -> list[float]:
        """Numbers that are spread over the processes, in one order.

        Args:
            own: those of this process, in order.
            owners: the rank that has each of all numbers, in order; the same in every process.
        """
        return list(own)

    def recall_later(self, what: str) -> None:
        """Note something for a later attempt of this launch, which starts anew where a process was killed."""

    def recalls(self, what: str) -> bool:
        """Whether an earlier attempt of this launch noted it."""
        return False

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Do something of which all learn whether it failed anywhere.

        Raises:
            RunError: at the end of the block, what another process failed with.
        """
        yield


ALONE = Processes()
"""One process."""


def launched() -> tuple[int, int]:
    """Rank and number of the processes that a launcher started, by the environment; (0, 1) for one alone.

    Raises:
        ConfigError: WORLD_SIZE or RANK is no number that fits, or WORLD_SIZE is set without RANK.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return 0, 1
    rank = os.environ.get("RANK", "")
    if not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        raise ConfigError(
            f"the environment has WORLD_SIZE={size!r} and RANK={rank!r}, which are not of one launch; start "
            "with torchrun, which sets both, or unset WORLD_SIZE"
        )
    return int(rank), int(size)


def check_share(accumulate: int, size: int) -> None:
    """Refuse a number of processes that cannot share out the batches of an optimization step evenly.

    Args:
        accumulate: batches of a step.
        size: number of processes.

    Raises:
        ConfigError: the one is no multiple of the other.
    """
    if accumulate % size:
        batches = "batches make" if accumulate > 1 else "batch makes"
        raise ConfigError(
            f"training.accumulate = {accumulate} {batches} a step and {size} processes share them: set "
            f"training.accumulate to a multiple of {size}, or start another number of processes"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Be one of the processes that a launcher started, for the block; alone where nobody started several.

    A process that has a default group of torch.distributed already, as under Ray Train, adds a group of its
    own to it.

    Args:
        device: to train on; "cuda" without a number is the one that LOCAL_RANK counts to.

    Raises:
        ConfigError: the environment is not that of one launch.
        RunError: the others cannot be reached, or train on another kind of device.
    """
    rank, size = launched()
    if size == 1:
        yield ALONE
        return
    from recsys.training.process_group import open_group

    group = open_group(rank, size, device)
    try:
        yield group
    finally:
        group.close()
