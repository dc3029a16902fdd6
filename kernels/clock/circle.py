"""The clock face: kernels of the time-of-day distance as finite Fourier polynomials.

cos^(2M)(pi dh / 24) follows a Gaussian of dh with sigma = sqrt(2 / M) radians of the 24-hour circle within 2%
of its peak, is nowhere negative, and is a polynomial of degree M in cos and sin of the hour: a weighted sum
over past events is then a product of features, and a recurrence. (The Fourier series of the Gaussian itself,
cut off, ripples below zero where the weight should be nothing.)
"""

import math

import torch
from torch import Tensor

__all__ = [
    "DAY",
    "circle_features",
    "cosine_coefficients",
    "evaluate_kernel",
    "highest_harmonic",
    "hours_to_degree",
]

DAY = 86_400
"""Seconds of the circle."""


def hours_to_degree(sigma: float) -> int:
    """Return M of the cos^(2M) kernel nearest to a Gaussian with deviation `sigma` hours (at least 1)."""
    return max(1, round(2.0 / (sigma * math.tau / 24.0) ** 2))


def highest_harmonic(degree: int, tolerance: float = 1e-7) -> int:
    """Return the least H for which the harmonics of cos^(2M) above H add up to less than `tolerance`.

    The coefficients fall as exp(-m^2 / M): of M = 29 single precision sees 19 harmonics, and a state of them
    is two thirds of the whole.

    Args:
        degree: M >= 1.
        tolerance: of the kernel's peak, which is one.
    """
    left, highest = 0.0, degree
    while highest > 1:
        left += 2.0 * math.comb(2 * degree, degree + highest) / 4**degree
        if left >= tolerance:
            break
        highest -= 1
    return highest


def cosine_coefficients(degree: int, length: int | None = None) -> Tensor:
    """Return c (length,) float64 with cos^(2M)(x / 2) = c_0 + 2 sum over m of c_m cos(m x), zero above M.

    c_m = binomial(2M, M + m) / 4^M.

    Args:
        degree: M >= 1.
        length: number of coefficients, M + 1 unless told; fewer cut the polynomial, `highest_harmonic` says
            where nothing is lost.
    """
    c = torch.zeros(degree + 1 if length is None else length, dtype=torch.float64)
    for m in range(min(degree + 1, len(c))):
        c[m] = math.comb(2 * degree, degree + m) / 4**degree
    return c


def circle_features(times: Tensor, degree: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (1, cos x, .., cos M x, sin x, .., sin M x) of each time's angle x.

    The product of two times' features, the first weighted (c_0, 2 c_1, .., 2 c_M, 2 c_1, .., 2 c_M), is the
    kernel of their distance. Multiples of the angle are reduced as integers, so large stamps lose nothing.

    Args:
        times: (N,) int64 local seconds.
        degree: M.
        dtype: of the result.

    Returns:
        (N, 2M + 1).
    """
    orders = torch.arange(1, degree + 1, device=times.device)
    angles = (times[:, None].remainder(DAY) * orders).remainder(DAY).to(dtype) * (math.tau / DAY)
    return torch.cat((torch.ones_like(angles[:, :1]), angles.cos(), angles.sin()), dim=1)


def weigh_features(features: Tensor, coefficients: Tensor) -> Tensor:
    """Multiply features by (c_0, 2 c_1, .., 2 c_M, 2 c_1, .., 2 c_M).

    Args:
        features: (N, 2M + 1), or with further columns, which are zero and stay so.
        coefficients: (M + 1,).
    """
    tail = 2.0 * coefficients[1:]
    weights = torch.cat((coefficients[:1], tail, tail)).to(features.dtype)
    return features * torch.nn.functional.pad(weights, (0, features.shape[1] - len(weights)))


def evaluate_kernel(gap: Tensor, coefficients: Tensor) -> Tensor:
    """Return the kernel's value at each gap (seconds, any shape), in the dtype of `coefficients`."""
    orders = torch.arange(len(coefficients), device=gap.device)
    angles = (gap[..., None].remainder(DAY) * orders).remainder(DAY).to(coefficients.dtype)
    weights = torch.cat((coefficients[:1], 2.0 * coefficients[1:]))
    return ((angles * (math.tau / DAY)).cos() * weights).sum(-1)
