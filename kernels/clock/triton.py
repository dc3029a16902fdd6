"""The clock on the GPU: one Triton kernel for the sums and, with its roles exchanged, for every gradient."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.clock.ages import decay_logs
from recsys.kernels.clock.call import ClockCall
from recsys.kernels.clock.circle import circle_features, weigh_features
from recsys.kernels.clock.gradients import register_gradients
from recsys.kernels.clock.triton_products import products_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["clock_sums", "decayed_products"]

FEATURES = (32, 64)
"""Feature widths that kernels are compiled for; M up to 31, a Gaussian of about an hour."""


def clock_sums(call: ClockCall) -> Tensor:
    """Sum; a state in registers costs little to read, so the recurrent form alone.

    Raises:
        ArgumentError: the kernel has too high a degree.
    """
    values, times, query_times, offsets = call.values, call.times, call.query_times, call.offsets
    coefficients, rate = call.coefficients, call.rate
    degree = len(coefficients) - 1
    if 2 * degree + 1 > FEATURES[-1]:
        raise ArgumentError(
            f"clock_sums: coefficients has {degree + 1} entries, backend 'triton' takes at most "
            f"{FEATURES[-1] // 2}: use a wider kernel, or backend='reference'"
        )
    asked = circle_features(times, degree)
    asking = weigh_features(circle_features(query_times, degree), coefficients.float())
    asking_log, asked_log = decay_logs(times, query_times, offsets, rate)
    out: Tensor = decayed_products(
        asking, asking_log, asked, asked_log, values.float(), offsets, 0, False, True
    )
    return out.to(values.dtype)


@torch.library.custom_op("recsys::clock_products_triton", mutates_args=(), device_types=("cuda", "cpu"))
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
    """As `cpu.decayed_products`, for up to FEATURES[-1] features and any width; `chunk` is not read."""
    out = torch.empty(c.shape, device=c.device)
    features, width = a.shape[1], c.shape[1]
    padded = next(size for size in FEATURES if size >= features)
    config = choose_config("clock", "products", architecture(c), features=padded)
    sequences = len(offsets) - 1
    slices = -(-width // config.blocks["BLOCK_W"])
    # Longest first, so that one long history does not hold up the rest at the end.
    order = offsets.diff().neg().argsort(stable=True).to(torch.int32)
    launch(
        products_kernel,
        sequences * slices,
        config,
        order,
        offsets.to(torch.int32),
        a.contiguous(),
        a_log.contiguous(),
        b.contiguous(),
        b_log.contiguous(),
        c.contiguous(),
        out,
        features,
        width,
        slices,
        REVERSE=reverse,
        DECAYING=decaying,
        BLOCK_F=padded,
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
    return torch.empty(c.shape, device=c.device)


register_gradients(decayed_products, FEATURES[-1])
