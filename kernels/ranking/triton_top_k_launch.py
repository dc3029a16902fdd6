"""The k best items of each row on a GPU, exactly, with most of the work in tensor cores.

A low-precision prefilter bounds every tile of the catalog, and float32 scores are made of the tiles that can
hold an answer (`triton_top_k`). A row whose picked tiles do not prove its answer is asked again: first with
products nearly as good as float32, then without a prefilter. Each round reads one flag back from the device;
most calls need one round. Returned scores come from one kernel, which has one configuration for a type and
width, so a row's answer has the same bits in any batch and by any way.

Legend: B rows, V items, d width; a tile is TILE places.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.errors import ArgumentError
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged
from recsys.kernels.ranking.triton_plan import Excluded, Plan, entries_of, lists_of
from recsys.kernels.ranking.triton_top_k import NOTHING, prefilter_tiles, score_picks, unpack_best
from recsys.kernels.shared.launching import Config, architecture, choose_config, interpreting, launch
from recsys.kernels.shared.launching.recording import active_recorder

__all__ = ["Catalog", "Found", "picks_of", "precisions", "relative_error", "select", "top_k"]

TILE = 64
"""Items of a tile."""

WORKSPACE = 64 << 20
"""Bytes for bounds and keys: rows go through in slabs that fit, of one block of rows at least."""

SPARE = 8
"""Tiles picked beyond the k, and a quarter of k, for the bounds' slack."""

_TOGETHER = 8
"""Rows that share the reading of a tile where every score is made."""

_UNPACKING = Config(blocks={"CHUNK": 128}, num_warps=4)


class Catalog(NamedTuple):
    """The places that may be returned."""

    ids: Tensor | None
    """(places,) int64 ascending, -1 for repeats and denied ones; None for all items, as they lie."""
    ordered: Tensor | None
    """The sorted candidates, among which exclusions are looked up."""
    places: int


class Found(NamedTuple):
    """Answers of one round, and what is wrong with them."""

    scores: Tensor
    """(B, k) float32, -inf where no item was left."""
    ids: Tensor
    """(B, k) int64, -1 where no item was left."""
    faults: list[Tensor]
    """(programs,) int32 each, not 0 where scores are not finite, or with a prefilter might not be."""
    unsure: Tensor
    """(B,) int32, not 0 where an answer might be another; empty without a prefilter."""


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    *,
    candidates: Tensor | None,
    deny: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Ask in rounds until every row is sure; arguments as in the public function."""
    hidden, item_weight = hidden.contiguous(), item_weight.contiguous()
    catalog = _list_catalog(len(item_weight), candidates, deny)
    first, *others = precisions(hidden.dtype, k, catalog.places)
    found = select(hidden, item_weight, k, exclude, catalog, first)
    scores, ids, rows = found.scores, found.ids, None
    for precision in others:
        again = _rows_again(found)
        if again is None:
            return scores, ids
        rows = again if rows is None else rows[again]
        excluded = None if exclude is None else _lists_of_rows(exclude, rows)
        found = select(hidden[rows], item_weight, k, excluded, catalog, precision)
        scores[rows], ids[rows] = found.scores, found.ids
    if _rows_again(found) is not None:
        raise ArgumentError(NOT_FINITE)
    return scores, ids


def _rows_again(found: Found) -> Tensor | None:
    """The rows that must be asked again: all after a fault. None if there are none."""
    if not bool(torch.cat((*found.faults, found.unsure)).any()):
        return None
    if bool(torch.cat(found.faults).any()):
        return torch.arange(len(found.ids), device=found.ids.device)
    return found.unsure.nonzero()[:, 0]


def precisions(dtype: torch.dtype, k: int, places: int) -> Sequence[str | None]:
    """The rounds of a search: each prefilter's precision; the last, None, makes every score in float32."""
    if 2 * picks_of(k) >= -(-places // TILE):
        return (None,)
    return ("tf32", "tf32x3", None) if dtype == torch.float32 else ("ieee", None)


def picks_of(k: int) -> int:
    """How many tiles are picked for k answers."""
    return k + k // 4 + SPARE


def select(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    catalog: Catalog,
    precision: str | None,
) -> Found:
    """Do one round, without waiting for the device.

    Args:
        hidden: (B, d), contiguous.
        item_weight: (V, d), contiguous.
        k: answers per row.
        exclude: as in the public function.
        catalog: the places that may be returned.
        precision: of the prefilter's products ("tf32", "tf32x3"; "ieee" for types narrower than float32), or
            None for no prefilter.
    """
    rows, tiles = len(hidden), -(-catalog.places // TILE)
    scores = hidden.new_empty((rows, k), dtype=torch.float32)
    ids = torch.empty((rows, k), dtype=torch.int64, device=hidden.device)
    none = ids.new_empty(0, dtype=torch.int32)
    if rows == 0 or tiles == 0:
        return Found(scores.fill_(-torch.inf), ids.fill_(-1), [], none)
    prefilter = None if precision is None else prefilter_config(hidden, precision)
    block = _TOGETHER if prefilter is None else prefilter.blocks["BLOCK_B"]
    excluded = None
    if exclude is not None:
        excluded = Excluded.sort(*exclude, block, TILE, catalog.places, ordered=catalog.ordered)
    picks = tiles if prefilter is None else min(picks_of(k), tiles)
    slab = max(1, _rows_that_fit(picks, 0 if prefilter is None else tiles) // block) * block
    unsure = none if prefilter is None else none.new_empty(rows)
    faults: list[Tensor] = []
    for first in range(0, rows, slab):
        own = slice(first, first + slab)
        own_excluded = None if excluded is None else excluded.from_block(first // block, tiles)
        best = picked = None
        if prefilter is not None and precision is not None:
            bounds, fault = bound_tiles(hidden[own], item_weight, catalog, own_excluded, precision, prefilter)
            faults.append(fault)
            best, picked = bounds.topk(picks, sorted=False)
        made, fault = score_tiles(hidden[own], item_weight, catalog, own_excluded, picked, block)
        faults.append(fault)
        keys = made.topk(min(k, made.shape[1]))[0]
        if keys.shape[1] < k:
            keys = pad(keys, (0, k - keys.shape[1]), value=NOTHING.value)
        doubts = None if best is None else unsure[own]
        out = keys, best, catalog.ids, scores[own], ids[own], doubts, k, picks
        launch(unpack_best, len(keys), _UNPACKING, *out)
    return Found(scores, ids, faults, unsure)


def _rows_that_fit(picks: int, tiles: int) -> int:
    return WORKSPACE // (8 * picks * TILE + 4 * tiles)


def bound_tiles(
    hidden: Tensor,
    item_weight: Tensor,
    catalog: Catalog,
    excluded: Excluded | None,
    precision: str,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Return what no true score of a tile exceeds, (B, tiles) float32, and `prefilter_tiles`' faults."""
    rows, width = hidden.shape
    plan = Plan.cut(rows, catalog.places, config.blocks["BLOCK_B"], TILE)
    bounds = hidden.new_empty((rows, -(-catalog.places // TILE)), dtype=torch.float32)
    faults = bounds.new_empty(plan.programs, dtype=torch.int32)
    launch(
        prefilter_tiles,
        plan.programs,
        config,
        hidden,
        item_weight,
        catalog.ids,
        *lists_of(excluded),
        bounds,
        faults,
        relative_error(precision, width),
        rows,
        catalog.places,
        plan.span,
        plan.row_blocks,
        entries_of(excluded),
        D=width,
        BLOCK_V=TILE,
        PRECISION=precision,
        TRUNCATE=precision == "tf32" and interpreting() and active_recorder() is None,
    )
    return bounds, faults


def score_tiles(
    hidden: Tensor,
    item_weight: Tensor,
    catalog: Catalog,
    excluded: Excluded | None,
    picked: Tensor | None,
    block: int,
) -> tuple[Tensor, Tensor]:
    """Return keys of true scores, (B, picks TILE) int64, and the faults of `score_picks`.

    Args:
        hidden: (B, d).
        item_weight: (V, d).
        catalog: the places.
        excluded: exclusions, sorted by blocks of `block` rows.
        picked: (B, picks) int64 tiles, or None for all.
        block: see `excluded`.
    """
    rows, width = hidden.shape
    together, picks = (_TOGETHER, -(-catalog.places // TILE)) if picked is None else (1, picked.shape[1])
    programs = -(-rows // together) * picks
    keys = hidden.new_empty((rows, picks * TILE), dtype=torch.int64)
    faults = keys.new_empty(programs, dtype=torch.int32)
    launch(
        score_picks,
        programs,
        _config("score", hidden),
        hidden,
        item_weight,
        catalog.ids,
        *lists_of(excluded),
        picked,
        keys,
        faults,
        rows,
        catalog.places,
        picks,
        entries_of(excluded),
        D=width,
        BLOCK_V=TILE,
        BLOCK_B=block,
        TOGETHER=together,
    )
    return keys, faults


def relative_error(precision: str, width: int) -> float:
    """The c of |rough - true| <= c |h| |w|, for rows and items of any length, and sums in any order.

    A tensor core reads a float32 as TF32, without 13 of its 23 bits: each operand loses less than 2^-10 of
    itself. Three products of halves lose 2^-21. Sums of d products, there and in float32, and the rounding of
    lengths lose less than (d + 8) 2^-22 together.
    """
    operands = {"tf32": 1.01 * 2.0**-9, "tf32x3": 2.0**-20, "ieee": 0.0}[precision]
    return operands + (width + 8) * 2.0**-22


def _list_catalog(items: int, candidates: Tensor | None, deny: Tensor | None) -> Catalog:
    """List the ids that may be returned. No size depends on a value, so the device is not waited for."""
    if candidates is None and deny is None:
        return Catalog(None, None, items)
    if candidates is None:
        assert deny is not None
        return Catalog(torch.arange(items, device=deny.device).index_fill_(0, deny, -1), None, items)
    ordered = candidates.sort()[0]
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[1:] = ordered[1:] == ordered[:-1]
    if deny is not None:
        denied = torch.zeros(items, dtype=torch.bool, device=deny.device).index_fill_(0, deny, True)
        repeated |= denied[ordered]
    return Catalog(ordered.masked_fill(repeated, -1), ordered, len(ordered))


def _lists_of_rows(exclude: Jagged, rows: Tensor) -> Jagged:
    """The jagged lists of some rows."""
    ids, offsets = exclude
    counts = offsets.diff()[rows]
    ends = counts.cumsum(0)
    total = int(ends[-1])
    shift = (offsets[rows] - (ends - counts)).repeat_interleave(counts, output_size=total)
    return ids[torch.arange(total, device=ids.device) + shift], pad(ends, (1, 0))


def prefilter_config(hidden: Tensor, precision: str) -> Config:
    """Return the prefilter's configuration: by the rows as well, since no bit of an answer comes from it."""
    return _config("prefilter", hidden, rows=len(hidden), precision=precision)


def _config(kernel: str, hidden: Tensor, **sizes: int | str) -> Config:
    dtype = str(hidden.dtype).removeprefix("torch.")
    return choose_config("ranking", kernel, architecture(hidden), dtype=dtype, width=hidden.shape[1], **sizes)
