"""Exact ranks and top-k on a GPU: scores are made a tile at a time and counted or keyed where they are made.

float32 scores are products in full precision, without tensor cores; narrow types are multiplied exactly and
added in float32. Configurations depend on type and width alone, so a row's scores have the same bits in any
batch. Each call reads one flag back from the device, at its end, to refuse scores that are not finite.

Legend: B rows, V items, d width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.launching import Config, architecture, choose_config, launch
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged, rank_from_counts
from recsys.kernels.ranking.triton_rank import count_scores, score_targets
from recsys.kernels.ranking.triton_top_k import NOTHING, picked_keys, tile_keys

WORKSPACE = 64 << 20
"""Bytes for keys: rows go through in slabs that fit, of one block of rows at least."""

PROGRAMS = 1024
"""Programs wanted of a sweep: the catalog is cut in spans to get there. No result depends on the cut."""


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Count the scores above and level with the target's; arguments as in the public function."""
    counts, faults = count(hidden, item_weight, targets, exclude)
    above, level, above_barred, level_barred = counts
    broken, lost = torch.stack(((faults != 0.0).any(), (level < 1).any())).tolist()  # NaN is not 0 either
    if broken:
        raise ArgumentError(NOT_FINITE)
    if lost:
        raise ArgumentError("a target's score is not among its row's scores: targets must be ids in [0, V)")
    level = level - 1  # the target is level with itself
    kept = rank_from_counts(above, level, ties)
    return kept, rank_from_counts(above - above_barred, level - level_barred, ties)


def count(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None
) -> tuple[Tensor, Tensor]:
    """Return counts (4, B) int64 as `count_scores` and its faults, without waiting for them."""
    rows, (items, width) = len(hidden), item_weight.shape
    if rows == 0:
        return targets.new_zeros(4, 0), hidden.new_zeros(0, dtype=torch.float32)
    hidden, item_weight, targets = hidden.contiguous(), item_weight.contiguous(), targets.contiguous()
    config = _config("rank", hidden)
    barred = None if exclude is None else Barred.sort(*exclude, config, items, targets=targets)
    plan = _Plan.cut(rows, items, config)
    bars = hidden.new_zeros(rows, dtype=torch.float32)
    launch(
        score_targets,
        plan.programs,
        config,
        hidden,
        item_weight,
        targets,
        bars,
        rows,
        items,
        plan.span,
        plan.row_blocks,
        WIDTH=width,
    )
    counts = targets.new_empty((4, plan.spans, rows), dtype=torch.int32)
    faults = bars.new_empty(plan.programs)
    launch(
        count_scores,
        plan.programs,
        config,
        hidden,
        item_weight,
        bars,
        *_lists(barred),
        counts,
        faults,
        rows,
        items,
        plan.span,
        plan.row_blocks,
        _entries(barred),
        plan.spans,
        WIDTH=width,
    )
    return counts.sum(1), faults


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    *,
    candidates: Tensor | None,
    deny: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Select by the best score of each tile; arguments as in the public function."""
    scores, ids, faults = select(hidden, item_weight, k, exclude, candidates=candidates, deny=deny)
    if bool((faults != 0.0).any()):  # NaN too
        raise ArgumentError(NOT_FINITE)
    return scores, ids


def select(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    *,
    candidates: Tensor | None,
    deny: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (B, k), ids (B, k) and the sweeps' faults, without waiting for them."""
    rows, (items, width) = len(hidden), item_weight.shape
    hidden, item_weight = hidden.contiguous(), item_weight.contiguous()
    config = _config("top_k", hidden)
    ordered = None if candidates is None else candidates.sort()[0]
    catalog = list_items(items, ordered, deny)
    places = items if catalog is None else len(catalog)
    keys = torch.full((rows, k), NOTHING.value, dtype=torch.int64, device=hidden.device)
    if rows == 0 or places == 0:
        return *unpack(keys, catalog), hidden.new_zeros(0, dtype=torch.float32)
    barred = None if exclude is None else Barred.sort(*exclude, config, places, ordered=ordered)
    faults = []
    tile = config.blocks["ITEMS"]
    tiles = -(-places // tile)
    # Scoring a row's tile again costs a whole block's: with many answers it is cheaper to key every score.
    every = 4 * k >= tiles
    taken = min(k, places)
    each = places if every else tiles + k * tile
    slab = max(1, WORKSPACE // (8 * each) // config.blocks["ROWS"]) * config.blocks["ROWS"]
    for first in range(0, rows, slab):
        part = hidden[first : first + slab]
        plan = _Plan.cut(len(part), places, config)
        bars = None if barred is None else barred.from_block(first // config.blocks["ROWS"], tiles)
        best = keys.new_empty(len(part), places if every else tiles)
        faults.append(torch.empty(plan.programs, dtype=torch.float32, device=hidden.device))
        launch(
            tile_keys,
            plan.programs,
            config,
            part,
            item_weight,
            catalog,
            *_lists(bars),
            best,
            faults[-1],
            len(part),
            places,
            plan.span,
            plan.row_blocks,
            _entries(bars),
            WIDTH=width,
            EVERY=every,
        )
        if not every:
            picked = best.topk(k, sorted=False)[0]
            best = keys.new_empty(len(part), k * tile)
            launch(
                picked_keys,
                len(part) * k,
                config,
                part,
                item_weight,
                catalog,
                *_lists(bars),
                picked,
                best,
                len(part),
                places,
                k,
                _entries(bars),
                WIDTH=width,
            )
        keys[first : first + slab, :taken] = best.topk(taken)[0]
    return *unpack(keys, catalog), torch.cat(faults)


def list_items(items: int, ordered: Tensor | None, deny: Tensor | None) -> Tensor | None:
    """List the ids that may be returned, ascending, with -1 for repeats and denied ones; None for all.

    `ordered`: the sorted candidates or None. No size depends on a value, so the device is not waited for.
    """
    if ordered is None and deny is None:
        return None
    if ordered is None:
        assert deny is not None
        catalog = torch.arange(items, device=deny.device)
        return catalog.index_fill_(0, deny, -1)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[1:] = ordered[1:] == ordered[:-1]
    if deny is not None:
        denied = torch.zeros(items, dtype=torch.bool, device=deny.device).index_fill_(0, deny, True)
        repeated |= denied[ordered]
    return ordered.masked_fill(repeated, -1)


def unpack(keys: Tensor, catalog: Tensor | None) -> tuple[Tensor, Tensor]:
    """Turn keys into scores and ids; see `triton_top_k.pack`."""
    nothing = keys == NOTHING.value
    places = (0xFFFFFFFF - (keys & 0xFFFFFFFF)).masked_fill(nothing, 0)
    high = (keys >> 32).int()
    bits = torch.where(high < 0, high ^ 0x7FFFFFFF, high)
    scores = bits.view(torch.float32).masked_fill(nothing, float("-inf"))
    ids = places
    if catalog is not None and len(catalog) > 0:
        ids = catalog[places.clamp(max=len(catalog) - 1)]  # keys hold nothing while launches are recorded
    return scores, ids.masked_fill(nothing, -1)


@dataclass(frozen=True, slots=True)
class Barred:
    """Pairs (row, item) that are left out, in the order in which tiles meet them; see `triton_barred`."""

    segments: Tensor
    """(E,) int64 ascending: row block * tiles + tile."""
    places: Tensor
    """(E,) int32: the cell within the tile, -1 for none."""

    @classmethod
    def sort(
        cls,
        ids: Tensor,
        offsets: Tensor,
        config: Config,
        places: int,
        *,
        targets: Tensor | None = None,
        ordered: Tensor | None = None,
    ) -> "Barred | None":
        """Sort jagged exclusion lists by tile, on their device, without waiting for it.

        Args:
            ids: (E,) int64.
            offsets: (B + 1,) int64.
            config: gives the tile.
            places: items of the catalog, or entries of `ordered`.
            targets: (B,) ids that are left in.
            ordered: the sorted candidates, whose places stand for ids; others are dropped.
        """
        if len(ids) == 0:
            return None
        high, wide = config.blocks["ROWS"], config.blocks["ITEMS"]
        row = torch.arange(len(offsets) - 1, device=ids.device)
        row = row.repeat_interleave(offsets.diff(), output_size=len(ids))
        place = ids
        dropped = torch.zeros_like(ids, dtype=torch.bool) if targets is None else ids == targets[row]
        if ordered is not None:
            place = torch.searchsorted(ordered, ids).clamp_(max=places - 1)
            dropped |= ordered[place] != ids
        cell = (row % high * wide + place % wide).masked_fill(dropped, -1).int()
        segments, order = (row // high * -(-places // wide) + place // wide).sort()
        return cls(segments, cell[order])

    def from_block(self, block: int, tiles: int) -> "Barred":
        """Count segments from a row block, for a launch whose rows begin there."""
        return self if block == 0 else Barred(self.segments - block * tiles, self.places)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a sweep of B rows over the catalog is cut into programs."""

    row_blocks: int
    span: int
    """Items of a program, a multiple of the tile."""
    spans: int

    @classmethod
    def cut(cls, rows: int, items: int, config: Config) -> "_Plan":
        blocks = -(-rows // config.blocks["ROWS"])
        tiles = -(-items // config.blocks["ITEMS"])
        each = -(-tiles // max(1, PROGRAMS // blocks))
        return cls(blocks, each * config.blocks["ITEMS"], -(-tiles // each))

    @property
    def programs(self) -> int:
        return self.row_blocks * self.spans


def _lists(barred: Barred | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if barred is None else (barred.segments, barred.places)


def _entries(barred: Barred | None) -> int:
    return 0 if barred is None else len(barred.segments)


def _config(kernel: str, hidden: Tensor) -> Config:
    dtype = str(hidden.dtype).removeprefix("torch.")
    return choose_config("ranking", kernel, architecture(hidden), dtype=dtype, width=hidden.shape[1])
