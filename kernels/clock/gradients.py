"""Gradients of the clock's causal products, by the same operation with its roles exchanged."""

import math
from functools import reduce
from operator import add
from typing import Any

from torch import Tensor

__all__ = ["register_gradients"]


def register_gradients(operation: Any, most_features: int | None = None) -> None:
    """Register the gradients of out_i = sum over j <= i of 2^(x_j - y_i) (a_i . b_j) c_j.

    Args:
        operation: a custom operation (a, y, b, x, c, offsets, chunk, reverse, decaying) -> out.
        most_features: columns that it takes as features at once; None is any number.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:6], output)
        ctx.options = inputs[6:]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, a_log, b, b_log, c, offsets, out = ctx.saved_tensors
        chunk, reverse, decaying = ctx.options
        wants_a, wants_a_log, wants_b, wants_b_log, wants_c = ctx.needs_input_grad[:5]
        d_a = d_b = d_c = d_a_log = d_b_log = None
        # The values' columns are features here; those that do not go at once add up.
        at_once = most_features or grad.shape[1]
        slices = list(zip(grad.split(at_once, 1), c.split(at_once, 1), strict=True))
        if wants_a:
            back = (offsets, chunk, reverse, decaying)
            d_a = reduce(add, (operation(g, a_log, part, b_log, b, *back) for g, part in slices))
        if wants_b:
            back = (offsets, chunk, not reverse, decaying)
            d_b = reduce(add, (operation(part, b_log, g, a_log, a, *back) for g, part in slices))
        if wants_c or (wants_b_log and decaying):
            d_c = operation(b, b_log, a, a_log, grad, offsets, chunk, not reverse, decaying)
        # out_i is proportional to 2^-y_i, and the share of j in the loss to 2^x_j.
        # Single precision does for a row: `out` itself is no better.
        ln2 = math.log(2.0) * (-1.0 if reverse else 1.0)
        if wants_a_log and decaying:
            d_a_log = -ln2 * (grad * out).sum(1).double()
        if wants_b_log and decaying:
            d_b_log = ln2 * (c * d_c).sum(1).double()
        return d_a, d_a_log, d_b, d_b_log, d_c if wants_c else None, None, None, None, None

    operation.register_autograd(differentiate, setup_context=save)
