"""Runs to be served where none are given: trained for one epoch, as speed does not depend on how well."""

from pathlib import Path

import numpy as np

from recsys.benchmarks.training import made_store
from recsys.recommender import Recommender

__all__ = ["made_run"]


def made_run(folder: Path, encoder: str, *, users: int = 400, width: int = 128) -> Path:
    """Train on a log of ML-1M's lengths and catalog size, into a folder; one that is there is taken.

    Args:
        folder: that holds the runs.
        encoder: by name.
        users: of the made log.
        width: of the states.
    """
    import polars as pl

    run = folder / encoder
    if not run.exists():
        store = made_store(users=users)
        lengths = np.diff(store.offsets)
        log = pl.DataFrame(
            {
                "user_id": np.repeat(np.arange(1, store.n_users + 1), lengths),
                "item_id": np.asarray(store.items).astype(np.int64) + 1,
                "timestamp": np.asarray(store.timestamps),
            }
        )
        Recommender(
            encoder, encoder_options={"d_model": width}, training_options={"epochs": 1}, device="cpu"
        ).fit(log, out=run)
    return run
