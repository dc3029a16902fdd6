"""The clock on the CPU: one numba kernel for the sums and, with its roles exchanged, for every gradient."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.clock.ages import decay_logs
from recsys.kernels.clock.call import ClockCall
from recsys.kernels.clock.circle import weigh_features
from recsys.kernels.clock.cpu_features import padded_features
from recsys.kernels.clock.cpu_products import products_worker
from recsys.kernels.clock.gradients import register_gradients
from recsys.kernels.shared.arguments import check_offsets_values
from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES, PANEL

__all__ = ["clock_sums", "decayed_products"]


def clock_sums(call: ClockCall) -> Tensor:
    """Sum, `call.chunk` events at a time."""
    values, times, query_times, offsets = call.values, call.times, call.query_times, call.offsets
    coefficients, rate = call.coefficients, call.rate
    if not torch.compiler.is_compiling():
        check_offsets_values("clock_sums", offsets, len(values))
    degree = len(coefficients) - 1
    asked, asking = padded_features(times, degree), padded_features(query_times, degree)
    asking = weigh_features(asking, coefficients.float())
    width = values.shape[1]
    padded = torch.nn.functional.pad(values.float(), (0, -width % LANES))
    asking_log, asked_log = decay_logs(times, query_times, offsets, rate)
    decaying = bool(rate.requires_grad or rate > 0)
    chunk = -(-call.chunk // PANEL) * PANEL
    out: Tensor = decayed_products(
        asking, asking_log, asked, asked_log, padded, offsets, chunk, False, decaying
    )
    return out[:, :width].to(values.dtype)


@cpu_operator("recsys::clock_products_cpu")
def decayed_products(
    a: Tensor,
    a_log: Tensor,
    b: Tensor,
    b_log: Tensor,
    c: Tensor,
    offsets: Tensor,
    chunk: int,
    reverse: bool,
    decaying: bool,
) -> Tensor:
    """Return out_i = sum over j <= i (j >= i if `reverse`) of 2^(b_log_j - a_log_i) (a_i . b_j) c_j.

    `reverse` also turns the logs' signs around. a and b (N, F), c (N, W) float32, F and W multiples of LANES;
    a_log and b_log (N,) float64, read if `decaying`; `chunk` a multiple of PANEL.
    """
    out = torch.empty(c.shape)
    bounds = offsets.to(torch.int32).numpy()
    lengths = np.diff(bounds)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    longest = int(lengths.max(initial=0))
    features, width = a.shape[1], c.shape[1]
    steps = len(c) * (2 * features * width + min(chunk, longest) * (features + width) // 2) // 15
    launch(
        products_worker,
        threads_for(len(order), steps),
        order,
        bounds,
        longest,
        chunk,
        reverse,
        decaying,
        flat(a),
        _doubles(a_log),
        flat(b),
        _doubles(b_log),
        features,
        flat(c),
        width,
        flat(out),
    )
    return out


@decayed_products.register_fake
def _(
    a: Tensor,
    a_log: Tensor,
    b: Tensor,
    b_log: Tensor,
    c: Tensor,
    offsets: Tensor,
    chunk: int,
    reverse: bool,
    decaying: bool,
) -> Tensor:
    return c.new_empty(c.shape)


register_gradients(decayed_products)


def _doubles(x: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = x.detach().contiguous().numpy()
    return array
