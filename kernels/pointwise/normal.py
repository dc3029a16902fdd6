"""The tail of the normal distribution, which GELU multiplies by: a polynomial for the compiled kernels.

P(X > t) of a standard normal, t >= 0, is exp(-t^2 / 2) times a polynomial in s = 1 / (1 + SLOWNESS t), from
the first power up: minimax in relative error on [0, 13], 1.2e-7. The form is that of Abramowitz and Stegun
1964, 26.2.17.
"""

__all__ = ["DENSITY", "SLOWNESS", "TAIL"]

SLOWNESS = 0.3
TAIL = (
    0.11962325870990753,
    0.12084554135799408,
    0.0993470698595047,
    0.1304166615009308,
    -0.05716777965426445,
    0.2101188749074936,
    -0.15937861800193787,
    0.03619493544101715,
)
DENSITY = 0.3989422804014327
"""1 / sqrt(2 pi)."""
