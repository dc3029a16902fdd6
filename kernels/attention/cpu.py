"""Jagged attention on the CPU."""

from recsys.kernels.attention.reference import jagged_attention

__all__ = ["jagged_attention"]
