"""Sequential recommendation with compiled kernels: SASRec, BERT4Rec and Mamba behind one call.

Everything here is loaded on first use, so that ``import recsys`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from recsys.datasets.prepared.store import SequenceStore
    from recsys.datasets.preparing.prepare import prepare
    from recsys.datasets.sources.readers import read_interactions
    from recsys.encoders import build_encoder, register_encoder
    from recsys.evaluation.comparing import compare
    from recsys.jagged import SequenceBatch
    from recsys.recommender import Recommender, load
    from recsys.retrieval.item_index import ItemIndex

_HOMES = {
    "ItemIndex": "recsys.retrieval.item_index",
    "Recommender": "recsys.recommender",
    "SequenceBatch": "recsys.jagged",
    "SequenceStore": "recsys.datasets.prepared.store",
    "build_encoder": "recsys.encoders",
    "compare": "recsys.evaluation.comparing",
    "load": "recsys.recommender",
    "prepare": "recsys.datasets.preparing.prepare",
    "read_interactions": "recsys.datasets.sources.readers",
    "register_encoder": "recsys.encoders",
}

__all__ = [
    "ItemIndex",
    "Recommender",
    "SequenceBatch",
    "SequenceStore",
    "__version__",
    "build_encoder",
    "compare",
    "load",
    "prepare",
    "read_interactions",
    "register_encoder",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
