"""Argument checks of the selective scan; each failure is one line."""

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.arguments import check_shape

__all__ = ["check_events", "shapes_of"]


def check_events(
    name: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Refuse events, (N, ...) or one per user, and parameters that do not fit together.

    Raises:
        ArgumentError: names the argument and the shapes.
    """
    for label, tensor, axes in (("u", u, "(N, d_inner)"), ("A", A, "(d_inner, d_state)")):
        if tensor.dim() != 2:
            raise ArgumentError(f"{name}: {label} has shape {tuple(tensor.shape)}, want {axes}")
        check_shape(name, label, tensor, axes, tuple(tensor.shape), "itself")
    events, channels = u.shape
    states = A.shape[1]
    check_shape(name, "A", A, "(d_inner, d_state)", (channels, states), shapes_of(u=u))
    check_shape(name, "delta", delta, "(N, d_inner)", (events, channels), shapes_of(u=u))
    check_shape(name, "B", B, "(N, d_state)", (events, states), shapes_of(u=u, A=A))
    check_shape(name, "C", C, "(N, d_state)", (events, states), shapes_of(u=u, A=A))
    check_shape(name, "D", D, "(d_inner,)", (channels,), shapes_of(u=u))
    check_shape(name, "z", z, "(N, d_inner)", (events, channels), shapes_of(u=u))
    check_shape(name, "delta_bias", delta_bias, "(d_inner,)", (channels,), shapes_of(u=u))
    for label, other in (
        ("delta", delta),
        ("A", A),
        ("B", B),
        ("C", C),
        ("D", D),
        ("z", z),
        ("delta_bias", delta_bias),
    ):
        if other is not None and other.device != u.device:
            raise ArgumentError(f"{name}: {label} is on {other.device}, want {u.device} like u")


def shapes_of(**tensors: Tensor) -> str:
    """Return names with shapes, for messages."""
    return " and ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
