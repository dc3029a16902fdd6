"""Recommenders without an encoder: one module each, found by name in the registry, ranked as encoders are.

May import: evaluation, datasets, kernels and the ground floor.
"""
