"""Going on from a run on other data: which row of the new tables is which of the old ones.

Everything that is not an item's or a tag's own is taken over as it stands. A known item keeps its rows in the
weights, in AdamW's moments and in the weight average. A new one has moments of zero and starts

- from its features where items are made of these: its id row is zero;
- from the rows that its number hashes to, where items are hashed: they are shared, and stay as they are;
- else from the items beside it in the log (`recsys.training.neighbours`), or as it was drawn where there are
  none, in every table.

A new tag starts at zero, so that the vectors of known items that bear it stay what they were. A new value of
a column starts as a missing one, which the run knew it as so far.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.item_tower import ItemTower
from recsys.encoders.items import NumberedItems
from recsys.errors import RunError
from recsys.kernels.bags import bag_vectors
from recsys.training.averaging import UPDATES, WeightAverage
from recsys.training.neighbours import Bags

__all__ = ["Places", "RowPlaces", "begins_by", "grown"]

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RowPlaces:
    """Where the rows of a table were before.

    Attributes:
        rows: (n,) int64 of each, -1 for a new one.
        otherwise: (n,) int64 row that each starts from where it is new.
    """

    rows: NDArray[np.int64]
    otherwise: NDArray[np.int64]

    @property
    def new(self) -> int:
        """Rows that were not there."""
        return int((self.rows < 0).sum())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Places:
    """Where the items and tags of a log stood in the one before.

    Attributes:
        items: (V,) int64 place of each item there, -1 for a new one.
        items_before: V there.
        tags: (C,) int64 of each tag likewise; empty where items have none.
        columns: of the values of columns, by the name of the encoder's table.
    """

    items: NDArray[np.int64]
    items_before: int
    tags: NDArray[np.int64]
    columns: Mapping[str, RowPlaces] = field(default_factory=dict)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(V,) items that were there before."""
        return self.items >= 0


def begins_by(encoder: SequenceEncoder) -> str:
    """What new items start from: "features", "shared rows" or "neighbours"."""
    if isinstance(encoder.item_embedding, ItemTower):
        return "features"
    return "shared rows" if isinstance(encoder.item_embedding, NumberedItems) else "neighbours"


def grown(
    before: Mapping[str, Tensor],
    drawn: Mapping[str, Tensor],
    encoder: SequenceEncoder,
    places: Places,
    *,
    bags: Sequence[Bags],
    step: int,
    decays: tuple[float, float],
) -> Tensors:
    """The tensors of a checkpoint for another catalog.

    Args:
        before: the checkpoint's, as `recsys.training.checkpoint.pack` names them, on the CPU.
        drawn: those of the new run as it was drawn.
        encoder: of the new run.
        places: of its items and tags.
        bags: what new items start from where `begins_by` says neighbours.
        step: optimization steps taken before.
        decays: of the weight average before and now; 0 for none.

    Returns:
        By the same names; the best weights are left out, since they were chosen by other data.

    Raises:
        RunError: a table of the encoder's own grows with the catalog in a way that is not known.
    """
    old, new = _parts(before), _parts(drawn)
    rows = _rows(encoder, places)
    model = {name: value for name, value in new["model"].items() if not name.endswith(".numbers")}
    for name, value in model.items():
        there = old["model"].get(name)
        fits = there is not None and (name in rows or there.shape == value.shape)
        if not fits or there is None:
            raise RunError(
                f"the encoder's {name} is not known to the run that was to go on, or has another size there: "
                "it can only be trained anew"
            )
        model[name] = there
        if name in places.columns:
            otherwise = there[torch.from_numpy(places.columns[name].otherwise)]
            model[name] = _taken(there, rows[name], otherwise)
        elif name in rows:
            model[name] = _taken(there, rows[name], _first(value, name, encoder))
    if begins_by(encoder) == "neighbours":
        for name in rows.keys() - places.columns.keys():
            _begin_beside(model[name], bags)
    model |= _numbers(old["model"], encoder, places)
    moments = {}
    for name, value in old["optimizer"].items():
        parameter = name.rpartition("/")[0]
        moved = value.dim() and parameter in rows
        moments[name] = _taken(value, rows[parameter], torch.zeros(1)) if moved else value.clone()
    average = _average(old, new["average"], model, rows, step=step, decays=decays)
    parts = {"model": model, "optimizer": moments, "average": average}
    return {f"{part}/{name}": value for part, held in parts.items() for name, value in held.items()}


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    parts: dict[str, Tensors] = {"model": {}, "optimizer": {}, "average": {}, "best": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value.detach().cpu()
    return parts


def _embeddings(encoder: SequenceEncoder) -> Iterator[tuple[str, nn.Module]]:
    yield "item_embedding", encoder.item_embedding
    if encoder.output_embedding is not None:
        yield "output_embedding", encoder.output_embedding


def _rows(encoder: SequenceEncoder, places: Places) -> dict[str, Tensor]:
    """For each table that has a row for each item, tag or value, where its rows were; -1 for new ones."""
    found = {}
    items = torch.from_numpy(places.items)
    for name, table in _embeddings(encoder):
        hashed = isinstance(table, NumberedItems) and table.n_hashes > 0
        if not hashed and (not isinstance(table, ItemTower) or table.with_ids):
            extra = len(table.get_parameter("weight")) - encoder.n_items
            found[f"{name}.weight"] = torch.cat((items, places.items_before + torch.arange(extra)))
        if isinstance(table, ItemTower) and table.tag_weight is not None:
            found[f"{name}.tag_weight"] = torch.from_numpy(places.tags)
    return found | {name: torch.from_numpy(own.rows) for name, own in places.columns.items()}


def _first(drawn: Tensor, name: str, encoder: SequenceEncoder) -> Tensor:
    """What new rows start at, before neighbours are asked."""
    return drawn if begins_by(encoder) == "neighbours" else torch.zeros(1, dtype=drawn.dtype)


def _taken(before: Tensor, rows: Tensor, otherwise: Tensor) -> Tensor:
    """Rows of a table in their new places, and others where there were none."""
    there = (rows >= 0).view(-1, *[1] * (before.dim() - 1))
    return torch.where(there, before[rows.clamp(min=0)], otherwise)


def _begin_beside(table: Tensor, bags: Sequence[Bags]) -> None:
    for each in bags:
        offsets, beside, weights = (torch.from_numpy(a) for a in (each.offsets, each.rows, each.weights))
        table[torch.from_numpy(each.items)] = bag_vectors(table, offsets, beside, weights)


def _numbers(before: Tensors, encoder: SequenceEncoder, places: Places) -> Tensors:
    """What hashed items are hashed by: known ones as before, new ones by numbers that nobody had."""
    found = {}
    for name, table in _embeddings(encoder):
        if not isinstance(table, NumberedItems) or not table.n_hashes:
            continue
        old = before.get(f"{name}.numbers")
        old = torch.arange(places.items_before + table.n_extra) if old is None else old.to(torch.int64)
        end = int(old.max()) + 1 - table.n_extra
        items = torch.from_numpy(places.items)
        numbers = torch.where(items >= 0, old[items.clamp(min=0)], 0)
        new = items < 0
        numbers[new] = torch.arange(end, end + int(new.sum()))
        end = max(end, int(numbers.max()) + 1)
        numbers = torch.cat((numbers, torch.arange(end, end + table.n_extra)))
        if not torch.equal(numbers, torch.arange(len(numbers))):
            found[f"{name}.numbers"] = numbers.to(torch.int32)
    return found


def _average(
    old: Mapping[str, Tensors],
    wanted: Tensors,
    model: Tensors,
    rows: Mapping[str, Tensor],
    *,
    step: int,
    decays: tuple[float, float],
) -> Tensors:
    """The weight average; of new rows, and of a run that had none, it starts at the weights."""
    if not wanted:
        return {}
    before = _steady(old, wanted, step, decays)
    average = {}
    for name in wanted:
        parameter = name.removeprefix(UPDATES)
        first = torch.full((len(model[parameter]),), step) if name != parameter else model[parameter]
        kept = before.get(name, first)
        taken = parameter in rows and name in before
        average[name] = _taken(kept, rows[parameter], first) if taken else kept.clone()
    return average


def _steady(old: Mapping[str, Tensors], wanted: Tensors, step: int, decays: tuple[float, float]) -> Tensors:
    """The average of before, brought up to the last step unless it can go on as lazily as it was."""
    average = old["average"]
    lazy = next((n.removeprefix(UPDATES) for n in average if n.startswith(UPDATES)), None)
    if lazy is None or (decays[0] == decays[1] and UPDATES + lazy in wanted):
        return average
    held = nn.Module()
    # A parameter's name has no dot, and the table's has.
    held.register_parameter("table", nn.Parameter(old["model"][lazy]))
    there = WeightAverage(held, decays[0], "table")
    there.load({"table": average[lazy], f"{UPDATES}table": average[UPDATES + lazy]})
    kept = {name: value for name, value in average.items() if not name.startswith(UPDATES)}
    return {**kept, lazy: there.values(step)["table"]}
