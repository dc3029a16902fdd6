"""Linear cross-entropy on the CPU."""

from recsys.kernels.cross_entropy.reference import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
