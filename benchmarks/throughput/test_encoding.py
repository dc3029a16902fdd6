"""States of users from their histories, many at a time and one at a time."""

import numpy as np
import pytest

from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.training import ENCODERS
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config, preset
from recsys.encoders.inference import encode_histories


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("users", ["all users", "one user"])
def test_encode(encoder: str, users: str, store: SequenceStore, meter: Meter) -> None:
    config = encoder_config(encoder, preset(encoder, "tuned").get("encoder", {}))
    model = build_encoder(encoder, store.n_items, config).eval()
    rows = np.arange(store.n_users) if users == "all users" else np.array([0])
    starts, ends = store.offsets[:-1][rows], store.offsets[1:][rows]
    read = np.minimum(ends - starts, config.max_length)
    made = meter(
        lambda: encode_histories(model, store.items, store.timestamps, starts, ends),
        group=f"encoding, {users}, {int(read.sum()):,} events",
        events=int(read.sum()),
    )
    assert made.shape == (len(rows), config.d_model)
    assert made.isfinite().all()
