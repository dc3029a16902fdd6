"""What stands for the items: the tied embedding, latent vectors, or both; how it is chosen and ranked.

May import: evaluation, retrieval, encoders, datasets, kernels and the ground floor.
"""
