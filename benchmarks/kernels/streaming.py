"""One event at a time: does `step` give what `forward` gives, and what does it cost as a history grows?"""

import time
from typing import Any

import torch

from recsys.benchmarks.timing import spread
from recsys.encoders import build_encoder, encoder_config
from recsys.jagged import SequenceBatch

__all__ = ["measure_streaming"]

EVENTS = 500
HISTORIES = (10, 100, 500)
AROUND = 10
"""Steps up to each history whose median is taken."""


def measure_streaming(users: int = 8, d_model: int = 64, n_items: int = 1_000) -> dict[str, Any]:
    """Stream a few users through Mamba and SASRec on the CPU.

    Returns:
        For each encoder the greatest difference between the streamed and the whole hidden states, and the
        median time of a step near each history, in microseconds for all users together.
    """
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(n_items, (users, EVENTS), generator=generator)
    result = {}
    for name in ("mamba", "sasrec"):
        config = encoder_config(name, {"d_model": d_model, "max_length": EVENTS})
        encoder = build_encoder(name, n_items, config).eval()
        batch = SequenceBatch.from_lengths(items.flatten().numpy(), [EVENTS] * users)
        times, streamed = [], []
        with torch.no_grad():
            whole = encoder(batch).view(users, EVENTS, d_model)
            state = encoder.initial_state(users)
            for t in range(EVENTS):
                started = time.perf_counter()
                hidden, state = encoder.step(state, items[:, t])
                times.append(time.perf_counter() - started)
                streamed.append(hidden)
        difference = float((torch.stack(streamed, dim=1) - whole).abs().max())
        near = {str(n): spread([1e6 * t for t in times[max(1, n - AROUND) : n]]) for n in HISTORIES}
        first, last = near[str(HISTORIES[0])]["median"], near[str(HISTORIES[-1])]["median"]
        result[name] = {
            "users": users,
            "d_model": d_model,
            "events": EVENTS,
            "greatest_difference": difference,
            "equal_to_1e-5": difference <= 1e-5,
            "step_us_at_history": near,
            "last_to_first": float(f"{last / first:.3g}"),
        }
    return result
