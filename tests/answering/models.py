"""Small models of random weights, for tests of what becomes of their states."""

from typing import Any

import polars as pl
import torch

from recsys import Recommender
from recsys.datasets.synthetic.logs import clock_log

LONGEST = 16
N_ITEMS = 20


def day_log() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A log of 40 users and 20 items with times, and titles and categories of the items."""
    numbers = list(range(N_ITEMS))
    items = {"item_id": numbers, "title": [f"T{n}" if n % 4 else None for n in numbers]}
    categories = ["ab"[n % 2] + ("|c" if n % 5 == 0 else "") for n in numbers]
    log = clock_log(40, N_ITEMS, mean_length=10, utc_offset_hours=-5).frame
    return log, pl.DataFrame(items).with_columns(category=pl.Series(categories))


def random_model(name: str, data: Any, **encoder_options: Any) -> Recommender:
    """A model of random weights and of a repeat bias that matters."""
    small = {"d_model": 16, "n_layers": 1, "max_length": LONGEST}
    # Said, so that the preset chooses neither for a log that repeats.
    options = {**small, "repeat_bias": 4, "repeat_by": "last", "clock": "off", **encoder_options}
    quick = {"epochs": 1, "batch_events": 512}
    model = Recommender(name, encoder_options=options, training_options=quick, index="exact").fit(data)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.encoder_.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.2)
        assert model.encoder_.repeat_bias is not None
        model.encoder_.repeat_bias.weight.copy_(torch.tensor([0.3, -0.2, 0.1, -0.1]))
    model.build_index()
    return model
