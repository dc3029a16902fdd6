"""What an installation can do and whether it does it right: versions, processor, caches, kernels tried.

Imports kernels, retrieval and datasets for what they know of themselves; nothing below imports it.
"""
