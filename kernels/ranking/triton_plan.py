"""What ranking shares on the host: a pass over the catalog cut into programs, exclusions sorted by tile.

Legend: B rows, V items.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PROGRAMS = 1024
"""Programs wanted of a pass: the catalog is cut in spans to get there. No result depends on the cut."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """Pairs (row, item) that are excluded, in the order in which tiles meet them; see `triton_exclude`."""

    segments: Tensor
    """(E,) int64 ascending: row block * tiles + tile."""
    places: Tensor
    """(E,) int32: the cell within the tile, -1 for none."""

    @classmethod
    def sort(
        cls,
        ids: Tensor,
        offsets: Tensor,
        high: int,
        wide: int,
        places: int,
        *,
        targets: Tensor | None = None,
        ordered: Tensor | None = None,
    ) -> "Excluded | None":
        """Sort jagged exclusion lists by tile, on their device, without waiting for it.

        Args:
            ids: (E,) int64.
            offsets: (B + 1,) int64.
            high: rows of a block.
            wide: places of a tile.
            places: items of the catalog, or entries of `ordered`.
            targets: (B,) ids that are left in.
            ordered: the sorted candidates, whose places stand for ids; others are dropped.
        """
        if len(ids) == 0:
            return None
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

    def from_block(self, block: int, tiles: int) -> "Excluded":
        """Count segments from a row block, for a launch whose rows begin there."""
        return self if block == 0 else Excluded(self.segments - block * tiles, self.places)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a pass of B rows over the catalog is cut into programs."""

    row_blocks: int
    span: int
    """Items of a program, a multiple of the tile."""
    spans: int

    @classmethod
    def cut(cls, rows: int, items: int, high: int, wide: int) -> "Plan":
        """Cut for tiles of `high` rows and `wide` items."""
        blocks = -(-rows // high)
        tiles = -(-items // wide)
        each = -(-tiles // max(1, PROGRAMS // blocks))
        return cls(blocks, each * wide, -(-tiles // each))

    @property
    def programs(self) -> int:
        """Row blocks times spans."""
        return self.row_blocks * self.spans


def lists_of(excluded: Excluded | None) -> tuple[Tensor | None, Tensor | None]:
    """Its two arrays, as the kernels take them."""
    return (None, None) if excluded is None else (excluded.segments, excluded.places)


def entries_of(excluded: Excluded | None) -> int:
    """The length of its arrays."""
    return 0 if excluded is None else len(excluded.segments)
