"""The contract of encoders, one function per clause; each raises AssertionError with what does not hold."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder, encoder_config, encoder_name, preset, registration
from recsys.encoders.streams import join_states, split_states, tensors_of
from recsys.errors import ArgumentError
from recsys.testing.subject import EVENT_CODES, USER_CODES, Subject, V, batch_of, sequences, step

__all__ = ["CHECKS"]


def hidden_states_have_one_row_per_event(subject: Subject) -> None:
    """(N, D) finite states, also of sequences without events, and (V, D) item vectors."""
    encoder = subject.build()
    width = encoder.config.d_model
    with torch.no_grad():
        hidden = encoder(batch_of(sequences([3, 0, 7, 1])))
    _same_shape(hidden, (11, width), "the states of 11 events")
    _require(bool(torch.isfinite(hidden).all()), "a state is not finite")
    _same_shape(encoder.item_weight, (V, width), f"the vectors of {V} items")


def packing_changes_nothing(subject: Subject) -> None:
    """A batch gives what its sequences give one by one."""
    encoder, items = subject.build(), sequences([5, 1, 20, 2, 13])
    with torch.no_grad():
        together = encoder(batch_of(items))
        singly = torch.cat([encoder(batch_of([s])) for s in items])
    _close(together, singly)


def the_order_of_users_changes_nothing(subject: Subject) -> None:
    """A user's state is the same wherever in the batch the user stands."""
    encoder, items = subject.build(), sequences([5, 1, 20, 2, 13])
    with torch.no_grad():
        states = encoder.user_state(batch_of(items))
        turned = encoder.user_state(batch_of(items[::-1]))
    _close(states, turned.flip(0))


def one_user_never_reaches_another(subject: Subject) -> None:
    """Bit for bit: events of one user leave the states of others alone."""
    encoder = subject.build()
    first, second = sequences([9, 9])
    with torch.no_grad():
        before = encoder(batch_of([first, second]))
        after = encoder(batch_of([first, second[::-1]]))
    _require(torch.equal(before[:9], after[:9]), "the second user's events change the first user's states")
    _require(not torch.equal(before[9:], after[9:]), "the order of a user's events changes no state")


def causal_encoders_are_blind_to_the_future(subject: Subject) -> None:
    """Bit for bit, where `causal` says so; positions counted from the end are left out, as they know more."""
    encoder = subject.build()
    if getattr(encoder.config, "positions", None) == "reversed":
        return
    (sequence,) = sequences([20])
    for t in (0, 7, 18):
        changed = [*sequence[: t + 1], *((i + 1) % V for i in sequence[t + 1 :])]
        with torch.no_grad():
            before = encoder(batch_of([sequence, sequence]))
            after = encoder(batch_of([changed, sequence]))
        same = torch.equal(before[: t + 1], after[: t + 1])
        _require(
            same == encoder.causal,
            f"causal is {encoder.causal} and later events {'do not ' if same else ''}change earlier states",
        )
        _require(not torch.equal(before[t + 1 : 20], after[t + 1 : 20]), "an event does not change its state")


def streaming_gives_what_encoding_at_once_gives(subject: Subject) -> None:
    """`step` after `step` gives `user_state` of the window; of all events where longer ones are taken."""
    encoder = subject.build()
    items = np.array(sequences([40, 40, 40]))
    window, state = encoder.history_length, encoder.initial_state(3)
    bounded = _refuses_longer(encoder)
    # The clock and the item sum go on summing where a window moves on.
    sums = encoder.clock is not None or encoder.item_sum is not None
    steps = min(window, 40) if bounded and sums else 40
    exact = encoder.clock is not None or encoder.needs_timestamps
    with torch.no_grad():
        for t in range(steps):
            hidden, state = step(encoder, state, items[:, t], t)
            start = max(0, t + 1 - window) if bounded else 0
            whole = encoder.user_state(batch_of(list(items[:, start : t + 1])))
            _close(hidden, whole, 1e-5 if exact else 1e-4)


def columns_are_read_by_steps_as_at_once(subject: Subject) -> None:
    """`step` reads columns where `reads_columns` is true, and a first event's user where `reads_users` is."""
    encoder = subject.build_with_columns()
    if encoder is None:
        return
    length = min(encoder.history_length, 12)
    items, rng = np.array(sequences([length] * 3)), np.random.default_rng(0)
    users = rng.integers(0, USER_CODES, (3, 1)).repeat(length, axis=1)
    codes = np.stack((rng.integers(0, EVENT_CODES, (3, length)), users), axis=2)
    state = encoder.initial_state(3)
    with torch.no_grad():
        for t in range(length):
            hidden, state = step(encoder, state, items[:, t], t, torch.from_numpy(codes[:, t]))
            seen = [torch.from_numpy(own[: t + 1]) for own in codes]
            batch = replace(batch_of(list(items[:, : t + 1])), event_codes=torch.cat(seen))
            _close(hidden, encoder.user_state(batch), 1e-4)
            silent = encoder.user_state(replace(batch, event_codes=None))
            _require(not torch.equal(hidden, silent), "columns change no state")


def users_in_one_stream_need_not_be_equally_far(subject: Subject) -> None:
    """For states that count events in a field `lengths`: those of several users are joined and go on."""
    encoder = subject.build()
    if not hasattr(encoder.initial_state(1), "lengths"):
        return
    items = np.array(sequences([30, 30]))
    window = min(encoder.history_length, 29)
    with torch.no_grad():
        states = []
        for user, steps in ((0, 3), (1, window)):
            state = encoder.initial_state(1)
            for t in range(steps):
                _, state = step(encoder, state, items[user : user + 1, t], t)
            states.append(state)
        joined = join_states(states)
        hidden, _ = step(encoder, joined, items[[0, 1], [3, window]], np.array([3, window]))
        start = window + 1 - encoder.history_length
        whole = encoder.user_state(batch_of([items[0, :4], items[1, max(0, start) : window + 1]]))
    _close(hidden, whole, 1e-4)


def prefilling_gives_what_steps_give(subject: Subject) -> None:
    """`prefill`, where it is made at once: states, streams and what follows them, of users together."""
    encoder = subject.build()
    if not encoder.prefills:
        return
    window = encoder.history_length
    lengths = [5, 1, window - 1, 2, window]
    items = sequences([n + 2 for n in lengths])
    with torch.no_grad():
        hidden, together = encoder.prefill(batch_of([s[:n] for s, n in zip(items, lengths, strict=True)]))
        alone = []
        for user, n in enumerate(lengths):
            state = encoder.initial_state(1)
            for t in range(n):
                stepped, state = step(encoder, state, np.array(items[user][t : t + 1]), t)
            _close(hidden[user : user + 1], stepped, 1e-4)
            alone.append(state)
        joined = join_states(alone)
        _require(type(joined) is type(together), f"its state is a {type(together).__name__}")
        for found, wanted in zip(tensors_of(together), tensors_of(joined), strict=True):
            _same_shape(found, tuple(wanted.shape), "tensors of the state")
            _close(found, wanted, 1e-4)
        apart = split_states(together, len(lengths))
        for more in range(2):
            places = np.array(lengths) + more
            events = np.array([own[place] for own, place in zip(items, places, strict=True)])
            for user in range(len(lengths)):
                one = slice(user, user + 1)
                stepped, alone[user] = step(encoder, alone[user], events[one], places[one])
                hidden, apart[user] = step(encoder, apart[user], events[one], places[one])
                _close(hidden, stepped, 1e-4)


def dropout_follows_its_generator(subject: Subject) -> None:
    """The same seed gives the same masks, another others, and None drops nothing."""
    encoder, batch = subject.build(), batch_of(sequences([9, 4]))
    if not encoder.config.dropout:
        return
    with torch.no_grad():
        plain, again = encoder(batch), encoder(batch)
        first, same, other = (
            encoder(batch, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
    _require(torch.equal(plain, again), "without a generator two passes differ")
    _require(torch.equal(first, same), "the same generator gives other masks")
    _require(not torch.equal(first, other), "dropout does not follow the generator")
    _require(not torch.equal(first, plain), "a generator drops nothing although dropout is above 0")


def every_parameter_receives_a_gradient(subject: Subject) -> None:
    """None is left out of the states."""
    encoder = subject.build()
    hidden = encoder(batch_of(sequences([24, 5, 1])))
    generator = torch.Generator().manual_seed(0)
    loss = (hidden * torch.randn(hidden.shape, generator=generator)).sum()
    if encoder.output_embedding is not None:
        weight = encoder.item_weight
        loss = loss + (weight * torch.randn(weight.shape, generator=generator)).sum()
    loss.backward()
    # The bias of window items is added to scores, not to states.
    silent = [
        n
        for n, p in encoder.named_parameters()
        if (p.grad is None or not p.grad.abs().sum() > 0) and not n.startswith("repeat_bias.")
    ]
    _require(not silent, f"parameters without a gradient: {', '.join(silent)}")


def weights_survive_saving(subject: Subject) -> None:
    """Everything that decides the states is in the state dict."""
    encoder = subject.build()
    copy = build_encoder(subject.name, V, encoder.config, seed=9).eval()
    copy.load_state_dict(encoder.state_dict())
    batch = batch_of(sequences([9, 4]))
    with torch.no_grad():
        _require(torch.equal(encoder(batch), copy(batch)), "the state dict does not hold all that counts")


def the_seed_decides_the_weights(subject: Subject) -> None:
    """`initialize` draws from its generator alone."""
    first, again, other = (subject.build(seed).state_dict() for seed in (0, 0, 1))
    _require(all(torch.equal(first[n], again[n]) for n in first), "the same seed gives other weights")
    name = "item_embedding.weight"
    _require(not torch.equal(first[name], other[name]), "another seed gives the same item vectors")


def the_registry_builds_it_again(subject: Subject) -> None:
    """Its name and its settings, as files keep them, give the same encoder; every preset is valid."""
    from recsys.config import to_dict

    encoder = subject.build()
    name = encoder_name(encoder)
    _require(name == subject.name, f"it is registered as {name!r}")
    again = encoder_config(name, to_dict(encoder.config))
    _require(again == encoder.config, f"its settings change where they are written and read: {again}")
    shapes = {n: p.shape for n, p in build_encoder(name, V, again).named_parameters()}
    _require(shapes == {n: p.shape for n, p in encoder.named_parameters()}, "its shapes change")
    for which in registration(name).presets:
        encoder_config(name, preset(name, which).get("encoder", {}))


CHECKS: tuple[Callable[[Subject], None], ...] = (
    hidden_states_have_one_row_per_event,
    packing_changes_nothing,
    the_order_of_users_changes_nothing,
    one_user_never_reaches_another,
    causal_encoders_are_blind_to_the_future,
    streaming_gives_what_encoding_at_once_gives,
    columns_are_read_by_steps_as_at_once,
    users_in_one_stream_need_not_be_equally_far,
    prefilling_gives_what_steps_give,
    dropout_follows_its_generator,
    every_parameter_receives_a_gradient,
    weights_survive_saving,
    the_seed_decides_the_weights,
    the_registry_builds_it_again,
)
"""All clauses, in the order in which they are best read."""


def _refuses_longer(encoder: SequenceEncoder) -> bool:
    """Whether the encoder reads a window, and says so of a sequence that is longer."""
    try:
        with torch.no_grad():
            encoder(batch_of(sequences([encoder.config.max_length + 1])))
    except ArgumentError:
        return True
    return False


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _same_shape(tensor: Tensor, shape: tuple[int, ...], what: str) -> None:
    _require(tuple(tensor.shape) == shape, f"{what} have shape {tuple(tensor.shape)}, not {shape}")


def _close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
