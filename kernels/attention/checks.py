"""Checks of attention's arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.shared.arguments import check_offsets_values

MOST_HEAD_SIZE = 128
"""Of the Triton backend."""


def check_events(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse q, k, v that are not (N, H, Dh) alike.

    Raises:
        ArgumentError: a shape, dtype or device differs.
    """
    if q.dim() != 3 or not q.is_floating_point():
        raise ArgumentError(
            f"jagged_attention: q is {q.dtype} of shape {tuple(q.shape)}, want floating (N, H, Dh)"
        )
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape:
            raise ArgumentError(
                f"jagged_attention: {name} has shape {tuple(x.shape)} and q {tuple(q.shape)}, want them equal"
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise ArgumentError(
                f"jagged_attention: {name} is {x.dtype} on {x.device} and q {q.dtype} on {q.device}, "
                "want one dtype and device"
            )


def check_lengths(offsets: Tensor, events: int, max_length: int) -> None:
    """Refuse offsets (on the CPU) that do not cover the events, or a bound that is too low.

    Raises:
        ArgumentError: see above.
    """
    check_offsets_values("jagged_attention", offsets, events)
    longest = int(offsets.diff().max()) if offsets.shape[0] > 1 else 0
    if longest > max_length:
        raise ArgumentError(
            f"jagged_attention: max_length is {max_length} and the longest sequence has {longest} events, "
            "give an upper bound"
        )


def check_step(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, added: Tensor | None = None
) -> None:
    """Refuse a query, caches, lengths and added scores that do not go together.

    Raises:
        ArgumentError: a shape, dtype or length does not fit.
    """
    if q.dim() != 3 or not q.is_floating_point():
        raise ArgumentError(
            f"attention_step: q is {q.dtype} of shape {tuple(q.shape)}, want floating (B, H, Dh)"
        )
    rows = k_cache.shape[1] if k_cache.dim() == 4 else -1
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache.shape != (q.shape[0], rows, *q.shape[1:]):
            raise ArgumentError(
                f"attention_step: {name} has shape {tuple(cache.shape)} and q {tuple(q.shape)}, "
                "want (B, L, H, Dh) with the B, H, Dh of q and one L"
            )
        if cache.dtype != q.dtype or cache.device != q.device:
            raise ArgumentError(
                f"attention_step: {name} is {cache.dtype} on {cache.device} and q {q.dtype} on {q.device}, "
                "want one dtype and device"
            )
    if lengths.shape != q.shape[:1] or lengths.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(
            f"attention_step: lengths is {lengths.dtype} of shape {tuple(lengths.shape)} and q has shape "
            f"{tuple(q.shape)}, want int32 or int64 (B,)"
        )
    wanted = (*q.shape[:2], rows)
    if added is not None and (
        added.shape != wanted or not added.is_floating_point() or added.device != q.device
    ):
        raise ArgumentError(
            f"attention_step: added is {added.dtype} of shape {tuple(added.shape)} on {added.device}, want "
            f"floating (B, H, L) = {wanted} on {q.device}"
        )
    if lengths.numel() and lengths.device.type == "cpu" and not torch.compiler.is_compiling():
        lowest, highest = int(lengths.min()), int(lengths.max())
        if lowest < 0 or highest > rows:
            wrong = lowest if lowest < 0 else highest
            raise ArgumentError(
                f"attention_step: lengths holds {wrong} and the caches have {rows} rows, want [0, L]"
            )
