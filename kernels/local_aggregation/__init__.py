"""Local aggregation of latent-space decoding (arXiv:2509.11524): item vectors of a query's nearest states.

Read `reference` first, then `cpu` and `cpu_forward`; there is no backward pass.

For numpy arrays on the CPU, as the search that finds the states gives them.
Legend: b queries, d width, M states, m neighbours per query, V items.
"""

from recsys.kernels.local_aggregation.cpu import local_ranks, local_scores

__all__ = ["local_ranks", "local_scores"]
