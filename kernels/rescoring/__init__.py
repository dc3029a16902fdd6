"""The end of a search for nearest items: what was proposed is checked, scored in float64 and ordered.

Read `reference` first, then `cpu`. Also called re-ranking or refinement, as FAISS's IndexRefine. For numpy
arrays on the CPU, on the calling thread: a served query must not wait for another one.
"""

from recsys.kernels.rescoring.cpu import SLACK, all_finite, overflows, rescore, rescore_gathered, score_items
from recsys.kernels.rescoring.cpu_id_lists import digest, exclude_ids, is_sorted_within, same_lists
from recsys.kernels.shared.vector import LANES

__all__ = [
    "LANES",
    "SLACK",
    "all_finite",
    "digest",
    "exclude_ids",
    "is_sorted_within",
    "overflows",
    "rescore",
    "rescore_gathered",
    "same_lists",
    "score_items",
]
