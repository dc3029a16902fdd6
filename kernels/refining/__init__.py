"""The end of a search for nearest items: what was proposed is checked, scored in float64 and ordered.

For numpy arrays on the CPU, on the calling thread: a served query must not wait for another one.
"""

from recsys.kernels.refining.cpu import SLACK, all_finite, overflows, refine, refine_gathered, score_items
from recsys.kernels.refining.id_lists import digest, is_sorted_within, left_out, same_lists
from recsys.kernels.shared.vector import LANES

__all__ = [
    "LANES",
    "SLACK",
    "all_finite",
    "digest",
    "is_sorted_within",
    "left_out",
    "overflows",
    "refine",
    "refine_gathered",
    "same_lists",
    "score_items",
]
