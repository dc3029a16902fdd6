"""Exact ranks and top-k on the CPU."""

from recsys.kernels.ranking.reference import rank_of_target, top_k

__all__ = ["rank_of_target", "top_k"]
