"""Sequence encoders: SASRec, BERT4Rec and Mamba behind one protocol.

``build_encoder("mamba", n_items, config)`` makes one; ``register_encoder`` adds a fourth.
"""

from recsys.encoders.registry import (
    build_encoder,
    encoder_config,
    encoder_name,
    encoder_names,
    preset,
    register_encoder,
    registration,
)

__all__ = [
    "build_encoder",
    "encoder_config",
    "encoder_name",
    "encoder_names",
    "preset",
    "register_encoder",
    "registration",
]
