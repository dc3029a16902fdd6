"""Several processes of one training over torch.distributed: plain collectives, and JSON for what is said."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.errors import ConfigError, RecsysError, RunError
from recsys.training.processes import Processes

__all__ = ["ProcessGroup", "open_group"]

MEETING = timedelta(minutes=10)
"""How long processes wait for each other at the start."""
LONGEST_WAIT = timedelta(hours=6)
"""How long one waits for another later: process 0 may have a large log to prepare. A process that ends is
noticed at once; this is for a machine that vanishes and a launcher that does not notice."""

_joins = count()


class ProcessGroup(Processes):
    """One of several processes.

    Args:
        rank: of this one.
        size: of all.
        device: where this one trains.
        host: group for what lies in memory; None for the default one.
        store: that outlives this process if the launcher starts another in its place; None if there is none.
    """

    def __init__(
        self, rank: int, size: int, device: torch.device, host: dist.ProcessGroup | None, store: Any
    ) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._host = host
        self._store = store
        self._gpu: dist.ProcessGroup | None = None
        kinds = self.values(device.type)
        if len(set(kinds)) > 1:
            raise RunError(
                f"processes train on different devices ({', '.join(kinds)}), which do not give the same "
                "bits; choose one device for all"
            )
        if device.type == "cuda":
            # NCCL wants a GPU for each process; tensors of a shared one travel through the host.
            gpus = self.values(str(torch.cuda.get_device_properties(device).uuid))
            if len(set(gpus)) == size:
                self._gpu = dist.new_group(backend="nccl", timeout=LONGEST_WAIT)

    def close(self) -> None:
        """Leave the groups; no other process is waited for."""
        for group in (self._gpu, self._host):
            if group is not None:
                dist.destroy_process_group(group)
        if self._host is None:
            dist.destroy_process_group()

    def tell(self, value: Any) -> Any:
        """What process 0 says, in every process; see `Processes`."""
        said = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(said)])
        with _reachable():
            dist.broadcast(length, group_src=0, group=self._host)
            text = _bytes(said) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, group_src=0, group=self._host)
        return json.loads(text.numpy().tobytes())

    def values(self, value: Any) -> list[Any]:
        """What every process says, by rank; see `Processes`."""
        said = self.gather(_bytes(json.dumps(value).encode()))
        return [json.loads(text.numpy().tobytes()) for text in said]

    def gather(self, rows: Tensor, lengths: Sequence[int] | None = None) -> list[Tensor]:
        """The rows of every process, by rank; see `Processes`."""
        if lengths is None:
            counted = self.gather(torch.tensor([len(rows)]), [1] * self.size)
            lengths = [int(n) for n in counted]
        longest = max(lengths)
        # Equal lengths travel in one call; they are near each other, as are the batches they come of.
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        if not longest:
            return [padded] * self.size
        sent, group = self._sendable(padded)
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        with _reachable():
            dist.all_gather(parts, sent, group=group)
        return [part[:length].to(rows.device) for part, length in zip(parts, lengths, strict=True)]

    def exchange(self, parts: Sequence[Tensor], lengths: Sequence[int] | None = None) -> list[Tensor]:
        """Give each process its part and take theirs, by rank; see `Processes`."""
        given = [len(part) for part in parts]
        if lengths is None:
            counts = torch.empty(self.size, dtype=torch.int64)
            with _reachable():
                dist.all_to_all_single(counts, torch.tensor(given), group=self._host)
            lengths = counts.tolist()
        sent, group = self._sendable(torch.cat(list(parts)))
        taken = sent.new_empty((sum(lengths), *sent.shape[1:]))
        with _reachable():
            dist.all_to_all_single(taken, sent, list(lengths), given, group=group)
        return list(taken.to(parts[0].device).split(list(lengths)))

    def add_disjoint(self, values: Tensor) -> Tensor:
        """The sum over processes of tensors that are zero where another one's are not; see `Processes`."""
        total, group = self._sendable(values.clone())
        with _reachable():
            dist.all_reduce(total, group=group)
        return total.to(values.device)

    def in_order(self, own: Sequence[float], owners: Sequence[int]) -> list[float]:
        """Numbers that are spread over the processes, in one order; see `Processes`."""
        lengths = [owners.count(rank) for rank in range(self.size)]
        found = self.gather(torch.tensor(own, dtype=torch.float64), lengths)
        each = [iter(numbers.tolist()) for numbers in found]
        return [next(each[rank]) for rank in owners]

    def recall_later(self, what: str) -> None:
        """Note something for a later attempt of this launch; see `Processes`."""
        if self._store is not None:
            self._store.set(f"recsys/noted/{what}", "")

    def recalls(self, what: str) -> bool:
        """Whether an earlier attempt of this launch noted it; see `Processes`."""
        return self._store is not None and bool(self._store.check([f"recsys/noted/{what}"]))

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """Do something of which all learn whether it failed anywhere; see `Processes`."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        said = self.values(None if failure is None else _told(failure))
        if failure is not None:
            raise failure
        for line in said:
            if line is not None:
                raise RunError(line)

    def _sendable(self, values: Tensor) -> tuple[Tensor, dist.ProcessGroup | None]:
        """What is sent of a tensor, and the group that it is sent in."""
        if values.is_cuda and self._gpu is not None:
            return values.contiguous(), self._gpu
        return values.cpu().contiguous(), self._host


def open_group(rank: int, size: int, device: torch.device) -> ProcessGroup:
    """Meet the other processes; arguments as of `joined`, which says what is raised."""
    if device.type == "cuda":
        if device == torch.device("cuda"):  # without a number
            local = int(os.environ.get("LOCAL_RANK", rank))
            device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    host = meeting = None
    with _reachable():
        if dist.is_initialized():
            if dist.get_world_size() != size:
                raise RunError(
                    f"torch.distributed has a group of {dist.get_world_size()} processes and WORLD_SIZE is "
                    f"{size}; unset WORLD_SIZE to train in this process alone"
                )
            host = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        else:
            # An attempt of its own: after a restart the launcher's store still has addresses of the dead one.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            meeting = _meeting_point(rank, size)
            prefix = f"recsys/{attempt}/{next(_joins)}"
            store = dist.PrefixStore(prefix, meeting)  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    return ProcessGroup(rank, size, device, host, meeting)


@cache
def _meeting_point(rank: int, size: int) -> Any:
    """The store in which processes find each other: torchrun's, or one that process 0 opens."""
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if lacking:
        raise ConfigError(
            f"WORLD_SIZE is {size} and {lacking[0]} is not set; start with torchrun, which sets both, or "
            "unset WORLD_SIZE"
        )
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=rank == 0 and not served,
        timeout=MEETING,
    )


@contextmanager
def _reachable() -> Iterator[None]:
    """Say in one line that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).strip().split("\n")[0]
        raise RunError(
            f"another process of this training has ended or cannot be reached ({why}); see its own message, "
            "and go on from the last checkpoint with resume=True"
        ) from error


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, RecsysError) else f"{type(error).__name__}: {error}"
