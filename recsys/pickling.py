"""How a model goes to another process: as the name of its folder, from which it is loaded there.

Weights, vocabularies and an index with its filters are checked when they are read from a run folder; a pickle
would carry them past every check. So only where they lie is pickled, and a model that lies nowhere says so.
"""

import copyreg
from pathlib import Path
from typing import Any

from recsys.errors import ArgumentError, RunError
from recsys.run_folder import RunFolder, fingerprint


def reduce_model(model: Any) -> tuple[Any, ...]:
    """What `pickle`, `copy.deepcopy` and joblib keep of a model: its parameters, or its folder once fitted.

    Args:
        model: a `Recommender`, whose module imports this one.

    Raises:
        ArgumentError: it lies in no folder, or holds an index or items that its folder lacks.
    """
    if not hasattr(model, "encoder_"):
        return copyreg.__newobj__, (type(model),), dict(model.__dict__)  # type: ignore[attr-defined]
    folder = model._folder
    if folder is None or not RunFolder(folder).manifest.exists():
        raise ArgumentError("this model lies in no folder: save(PATH) it first, or load PATH over there")
    decoder = model._decoder
    if decoder is not None and decoder.differs_from(RunFolder(folder).index, built=model._index_is_own):
        raise ArgumentError(
            f"the index of this model is not the one in {folder}: save_changes() or save(PATH) first"
        )
    where = type(model), str(folder), fingerprint(model.encoder_)
    return reload_model, (*where, model.device, model.index, model.backend)


def reload_model(kind: Any, folder: str, weights: str, device: str, index: str, backend: str) -> Any:
    """Load the model that was pickled.

    Args:
        kind: its class.
        folder: where it lies.
        weights: fingerprint of its encoder.
        device: as of `Recommender.load`.
        index: as well.
        backend: as well.

    Raises:
        RunError: the folder is gone, or holds another model by now.
    """
    model = kind.load(Path(folder), device=device, index=index, backend=backend)
    if fingerprint(model.encoder_) != weights:
        raise RunError(f"{folder}: holds another model than the one that was pickled; pickle it again")
    return model
