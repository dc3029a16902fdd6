"""Checks of the elementwise operations' arguments; each failure is one line that names the argument."""

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.arguments import check_shape

__all__ = ["check_kind", "check_parts", "check_rows"]


def check_rows(name: str, x: Tensor, dropout_p: float) -> None:
    """Refuse rows that are not floating (N, D), and probabilities outside [0, 1).

    Raises:
        ArgumentError: see above.
    """
    if x.dim() != 2 or not x.is_floating_point():
        raise ArgumentError(f"{name}: x is {x.dtype} of shape {tuple(x.shape)}, want floating (N, D)")
    if not 0.0 <= dropout_p < 1.0:
        raise ArgumentError(f"{name}: dropout_p is {dropout_p}, want at least 0 and below 1")


def check_kind(x: Tensor, kind: str) -> None:
    """Refuse unknown activations, and rows that hold no value and gate of one width.

    Raises:
        ArgumentError: see above.
    """
    if kind not in ("gelu", "swiglu"):
        raise ArgumentError(f"activate: kind is {kind!r}, use 'gelu' or 'swiglu'")
    if kind == "swiglu" and x.shape[1] % 2:
        raise ArgumentError(f"activate: x has shape {tuple(x.shape)}, want an even width: value, then gate")


def check_parts(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> None:
    """Refuse a projection's output and rotations that do not go together.

    Raises:
        ArgumentError: see above.
    """
    name = "rotate_parts"
    if x.dim() != 4 or not x.is_floating_point() or x.shape[3] % 2:
        raise ArgumentError(
            f"{name}: x is {x.dtype} of shape {tuple(x.shape)}, want floating (N, P, H, E) with E even"
        )
    if not 0 <= turned <= x.shape[1]:
        raise ArgumentError(f"{name}: turned is {turned}, want 0 to P = {x.shape[1]}")
    for label, other in (("cos", cos), ("sin", sin)):
        expected = (x.shape[0], x.shape[3] // 2)
        check_shape(name, label, other, "(N, E / 2)", expected, f"x {tuple(x.shape)}")
