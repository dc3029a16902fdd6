"""From raw ids to ranked raw ids: requests, query vectors, added items, kept states, scoring of everybody.

May import: decoding, retrieval, encoders, evaluation, training, datasets, kernels and the ground floor.
"""
