"""Streaming states of several users: joined, taken apart, made by steps where nothing makes them at once.

A state is a tensor whose first axis is the users', or a dataclass, tuple, list or mapping of states; None is
that of an encoder that keeps nothing. A dataclass names the fields whose users lie on another axis in
`user_axes`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch

if TYPE_CHECKING:
    from recsys.encoders.base import SequenceEncoder

__all__ = ["join_states", "split_states", "step_through", "tensors_of"]


def join_states(states: Sequence[Any]) -> Any:
    """One state of all users of several states, in order.

    Raises:
        ArgumentError: they are made of something else than tensors.
    """
    return states[0] if len(states) == 1 else _joined(states, 0)


def split_states(state: Any, n: int) -> list[Any]:
    """The n users of a state apart, each in memory of its own.

    Raises:
        ArgumentError: it is made of something else than tensors.
    """
    return [state] if n == 1 else [_taken(state, user, 0) for user in range(n)]


def tensors_of(state: Any) -> Iterator[Tensor]:
    """All tensors of a state; what is none is passed over."""
    if isinstance(state, Tensor):
        yield state
        return
    if is_dataclass(state) and not isinstance(state, type):
        parts = [getattr(state, f.name) for f in fields(state)]
    elif isinstance(state, dict):
        parts = list(state.values())
    else:
        parts = list(state) if isinstance(state, list | tuple) else []
    for part in parts:
        yield from tensors_of(part)


def step_through(encoder: "SequenceEncoder", batch: SequenceBatch) -> tuple[Tensor, Any]:
    """What `encode_step` gives after whole sequences: last states (B, D), streaming state; event by event."""
    ends = batch.last_rows().tolist()
    hidden, states = [], []
    for first, last in zip([0, *(end + 1 for end in ends)], ends, strict=False):
        state, at = encoder.encode_start(1), None
        for row in range(first, last + 1):
            event = slice(row, row + 1)
            times = None if batch.timestamps is None else batch.timestamps[event]
            local = None if batch.local_times is None else batch.local_times[event]
            codes = None if batch.event_codes is None else batch.event_codes[event]
            at, state = encoder._step_own(state, batch.items[event], times, local, local, columns=codes)
        assert at is not None
        hidden.append(at)
        states.append(state)
    return torch.cat(hidden), join_states(states)


def _joined(states: Sequence[Any], axis: int) -> Any:
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(states), dim=axis)
    if is_dataclass(first) and not isinstance(first, type):
        axes = getattr(first, "user_axes", {})
        parts = {f.name: [getattr(state, f.name) for state in states] for f in fields(first)}
        return type(first)(**{name: _joined(own, axes.get(name, 0)) for name, own in parts.items()})
    if isinstance(first, dict):
        return {name: _joined([state[name] for state in states], axis) for name in first}
    if isinstance(first, list | tuple):
        return type(first)(_joined(own, axis) for own in zip(*states, strict=True))
    raise _unknown(first)


def _taken(state: Any, user: int, axis: int) -> Any:
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.narrow(axis, user, 1).clone()
    if is_dataclass(state) and not isinstance(state, type):
        axes = getattr(state, "user_axes", {})
        parts = {f.name: getattr(state, f.name) for f in fields(state)}
        return type(state)(**{name: _taken(own, user, axes.get(name, 0)) for name, own in parts.items()})
    if isinstance(state, dict):
        return {name: _taken(own, user, axis) for name, own in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_taken(own, user, axis) for own in state)
    raise _unknown(state)


def _unknown(state: Any) -> ArgumentError:
    return ArgumentError(
        f"a streaming state holds a {type(state).__name__}: make it of tensors, dataclasses, tuples, lists "
        "and mappings"
    )
