"""What is compared: encoders with and without the clock, and its two plain rivals, on one budget."""

from typing import Any

ENCODERS = ("sasrec", "bert4rec", "mamba")

VARIANTS: dict[str, dict[str, Any]] = {
    "off": {},
    "pool": {"clock": "pool"},
    "hours": {"clock": "hours"},
    "time_bias": {"time_bias": 96},
    "repeats": {"repeat_bias": 8},
    "pool_repeats": {"clock": "pool", "repeat_bias": 8},
}
"""off: no time; pool: the interest clock; hours: a learned vector per hour, of events and of the request;
time_bias: a learned score per gap between events in attention (HSTU's; 96 buckets reach a year); repeats: the
bias of items in the window by how far back they lie; pool_repeats: both."""

NAMES = {
    "off": "no clock",
    "pool": "clock",
    "hours": "hour vectors",
    "time_bias": "time-gap bias",
    "repeats": "no clock, repeat bias",
    "pool_repeats": "clock and repeat bias",
}

ENCODER = {"d_model": 64, "max_length": 100, "repeat_bias": 0}
"""The same of every run, over the encoder's tuned preset."""


def training(epochs: int) -> dict[str, Any]:
    """The budget of every run: no variant gets a recipe of its own."""
    return {
        "epochs": epochs,
        "evaluate_every": 2,
        "patience": 2,
        "batch_events": 1024,
        "learning_rate": 2e-3,
        "ema_decay": 0.99,
    }


def cells(
    encoders: tuple[str, ...] = ENCODERS, variants: tuple[str, ...] = tuple(VARIANTS)
) -> list[tuple[str, str]]:
    """(encoder, variant) of every cell; Mamba has no attention for a time bias to be added to."""
    return [(e, v) for v in variants for e in encoders if not (e == "mamba" and v == "time_bias")]
