"""Linear cross-entropy on a GPU: the (N, V) logits exist a tile at a time, in registers.

Three passes over the logits have two exponentials each per logit between them: the forward pass also sums
the gradient of the hidden rows (unscaled, so that any upstream gradient can follow), the backward pass
recomputes the softmax for the gradient of the items. Doing both gradients in one pass would save the second
exponential and send 8 d / BLOCK_N bytes per logit through memory instead: several times its price.

Legend: N rows, V items, d width.
"""

import math
from typing import Any

import torch
from torch import Tensor

from recsys.kernels.cross_entropy.call import LossCall
from recsys.kernels.cross_entropy.triton_backward import item_gradients
from recsys.kernels.cross_entropy.triton_forward import merge_splits, split_softmax
from recsys.kernels.shared.launching import Config, architecture, choose_config, launch

MOST_SPLITS = 64
"""Ranges that the catalog is cut in, at most; V alone decides, so that a row's bits do not depend on N."""

WORKSPACE = 64 << 20
"""Bytes for the splits' sums of weighted item vectors: rows go through in slabs that fit."""

PROGRAMS = 512
"""Programs wanted of the backward kernel: small catalogs get there by cutting the rows."""

_LOG2_E = 1.4426950408889634


def linear_cross_entropy(call: LossCall) -> Tensor:
    """Compute the loss in float32."""
    wanted = torch.is_grad_enabled() and call.hidden.requires_grad
    losses: Tensor
    losses, _, _ = row_losses(
        call.hidden,
        call.item_weight,
        call.bias,
        call.targets,
        call.label_smoothing,
        1.0 / call.temperature,
        call.skip_small,
        wanted,
    )
    weight, reduction = call.weight, call.reduction
    if reduction == "none":
        return losses if weight is None else losses * weight.float()
    if weight is None:
        return losses.sum() / max(len(losses), 1) if reduction == "mean" else losses.sum()
    scale = weight.float()
    total = (losses * scale).sum()
    if reduction == "sum":
        return total
    mass = scale.sum()
    return total / torch.where(mass == 0.0, torch.ones_like(mass), mass)


@torch.library.custom_op("recsys::linear_cross_entropy_triton", mutates_args=(), device_types=("cuda", "cpu"))
def row_losses(
    hidden: Tensor,
    item_weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    smoothing: float,
    rate: float,
    skip: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's loss, log2 of its softmax's denominator and, where wanted, its gradient in hidden.

    `rate` is 1 / temperature. All float32: (N,), (N,), (N, d) or empty.
    """
    losses, normalizers, gradients = _outputs(hidden, wanted)
    if len(hidden) == 0:
        return losses, normalizers, gradients
    hidden, item_weight, targets = hidden.contiguous(), item_weight.contiguous(), targets.contiguous()
    rows, (items, width) = len(hidden), item_weight.shape
    config, merging = (_config(kernel, hidden) for kernel in ("softmax", "merge"))
    length, splits = split_items(items)
    slab = slab_rows(splits, width) if wanted else rows
    mean_item = mean_bias = None
    if smoothing > 0.0:
        mean_item = item_weight.mean(0, dtype=torch.float32)
        mean_bias = None if bias is None else bias.mean(0, dtype=torch.float32, keepdim=True)
    most = min(slab, rows)
    tops, sums = losses.new_empty(splits * most), losses.new_empty(splits * most)
    goals = losses.new_full((most,), math.nan)
    sections = losses.new_empty(splits * most * width if wanted else 0)
    options = {"D": width, "SHIFT": _shift(hidden), "GRADIENT": wanted}
    for first in range(0, rows, slab):
        part = slice(first, first + slab)
        count = min(slab, rows - first)
        if first > 0:
            goals.fill_(math.nan)
        blocks = -(-count // config.blocks["BLOCK_N"])
        launch(
            split_softmax,
            blocks * splits * (_groups(config, width) if wanted else 1),
            config,
            hidden[part],
            item_weight,
            bias,
            targets[part],
            tops,
            sums,
            goals,
            sections,
            count,
            items,
            length,
            blocks,
            rate * _LOG2_E,
            _limit(hidden),
            SKIP=skip and wanted,
            **options,
        )
        launch(
            merge_splits,
            -(-count // merging.blocks["BLOCK_N"]),
            merging,
            hidden[part],
            item_weight,
            targets[part],
            tops,
            sums,
            goals,
            sections,
            mean_item,
            mean_bias,
            losses[part],
            normalizers[part],
            gradients[part],
            count,
            items,
            splits,
            rate * _LOG2_E,
            rate,
            smoothing,
            **options,
        )
    return losses, normalizers, gradients


@row_losses.register_fake
def _(
    hidden: Tensor,
    item_weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    smoothing: float,
    rate: float,
    skip: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(hidden, wanted)


@torch.library.custom_op(
    "recsys::linear_cross_entropy_items_triton", mutates_args=(), device_types=("cuda", "cpu")
)
def summed_item_gradients(
    hidden: Tensor,
    item_weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    normalizers: Tensor,
    upstream: Tensor,
    smoothing: float,
    rate: float,
    skip: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the sum of upstream * loss over rows in item_weight and bias (or empty).

    `upstream` is (N,) float32; `normalizers` and the other arguments as in `row_losses`.
    """
    d_items, d_bias = _item_outputs(item_weight, bias)
    if len(hidden) == 0:
        return d_items.zero_(), d_bias.zero_()
    hidden, item_weight, targets = hidden.contiguous(), item_weight.contiguous(), targets.contiguous()
    rows, (items, width) = len(hidden), item_weight.shape
    config = _config("items", hidden)
    blocks = -(-items // config.blocks["BLOCK_V"])
    length, parts = split_rows(rows, blocks, config.blocks["BLOCK_N"])
    # Gains of at most 1, so that float16 can hold a tile of softmax times gain; `factor` gives the size back.
    largest = upstream.abs().amax(keepdim=True)
    gains = upstream / torch.where(largest == 0.0, 1.0, largest)
    factor = largest * rate
    whole_hidden = whole_gain = None
    if smoothing > 0.0:
        whole_hidden = (gains[:, None] * hidden.float()).sum(0)
        whole_gain = gains.sum(0, keepdim=True)
    share = smoothing / items
    sums, bias_sums = d_items, d_bias
    if parts > 1:
        sums = upstream.new_empty(parts, items, width)
        bias_sums = upstream.new_empty(parts, 0 if bias is None else items)
    launch(
        item_gradients,
        blocks * parts * _groups(config, width),
        config,
        hidden,
        item_weight,
        bias,
        targets,
        normalizers,
        gains,
        factor,
        whole_hidden,
        whole_gain,
        sums,
        None if bias is None else bias_sums,
        rows,
        items,
        length,
        blocks,
        rate * _LOG2_E,
        1.0 - smoothing,
        share,
        _limit(hidden),
        D=width,
        SHIFT=_shift(hidden),
        FINAL=parts == 1,
        SKIP=skip,
    )
    if parts > 1:
        down = 0.5 ** _shift(hidden)
        total, bias_total = sums.sum(0) * down, bias_sums.sum(0) * down
        if whole_hidden is not None and whole_gain is not None:
            total -= share * whole_hidden
            bias_total -= share * whole_gain
        d_items.copy_(total * factor)
        d_bias.copy_(bias_total * factor)
    return d_items, d_bias


@summed_item_gradients.register_fake
def _(
    hidden: Tensor,
    item_weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    normalizers: Tensor,
    upstream: Tensor,
    smoothing: float,
    rate: float,
    skip: bool,
) -> tuple[Tensor, Tensor]:
    return _item_outputs(item_weight, bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, normalizers, gradients = output
    ctx.save_for_backward(*inputs[:4], normalizers, gradients)
    ctx.options = inputs[4:7]
    ctx.mark_non_differentiable(normalizers, gradients)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    d_hidden = d_items = d_bias = None
    if upstream is not None:
        hidden, item_weight, bias, targets, normalizers, gradients = ctx.saved_tensors
        upstream = upstream.contiguous()
        if ctx.needs_input_grad[0]:
            d_hidden = (gradients * upstream[:, None]).to(hidden.dtype)
        if any(ctx.needs_input_grad[1:3]):
            d_items, d_bias = summed_item_gradients(
                hidden, item_weight, bias, targets, normalizers, upstream, *ctx.options
            )
    return d_hidden, d_items, d_bias if ctx.needs_input_grad[2] else None, None, None, None, None, None


row_losses.register_autograd(_differentiate, setup_context=_save)


def split_items(items: int) -> tuple[int, int]:
    """Cut a catalog: items per split (a multiple of 128) and splits, by V alone.

    A split's sums of item vectors cost 8 d bytes of traffic per row: 4,096 items and more make that small
    beside their exponentials, a quarter of a small catalog keeps the chip busy with few rows.
    """
    length = max(1024, -(-items // MOST_SPLITS), min(4096, items // 4))
    length += -length % 128
    return length, -(-items // length)


def split_rows(rows: int, item_blocks: int, tile: int) -> tuple[int, int]:
    """Cut rows for the backward kernel: rows per part (a multiple of the tile) and parts.

    Parts times V is bounded by `PROGRAMS` blocks of items and V: the workspace is one gradient's size or
    that of a small constant catalog.
    """
    parts = max(1, min(PROGRAMS // item_blocks, rows // (4 * tile)))
    length = -(-rows // parts)
    length += -length % tile
    return length, -(-rows // length)


def slab_rows(splits: int, width: int) -> int:
    """Rows that go through the forward kernels together: a multiple of 128, `WORKSPACE` permitting."""
    return max(128, WORKSPACE // (4 * splits * width) // 128 * 128)


def _config(kernel: str, hidden: Tensor) -> Config:
    dtype = str(hidden.dtype).removeprefix("torch.")
    return choose_config("cross_entropy", kernel, architecture(hidden), dtype=dtype, width=hidden.shape[1])


def _groups(config: Config, width: int) -> int:
    return -(-width // config.blocks["BLOCK_D"])


def _shift(hidden: Tensor) -> int:
    # A softmax of a large catalog has values below 2^-14, float16's least normal number.
    return 14 if hidden.dtype == torch.float16 else 0


def _limit(hidden: Tensor) -> float:
    from recsys.kernels.cross_entropy.reference import smallest_share

    return math.log2(smallest_share(hidden.dtype))


def _outputs(hidden: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, width = hidden.shape
    wide = torch.float32
    return (
        hidden.new_empty(rows, dtype=wide),
        hidden.new_empty(rows, dtype=wide),
        hidden.new_empty((rows if wanted else 0, width), dtype=wide),
    )


def _item_outputs(item_weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    empty = item_weight.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return item_weight.new_empty(item_weight.shape), empty
