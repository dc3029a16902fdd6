"""From a request's tensors to what is asked of the engine, and from its answers to tensors."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from recsys.errors import RecsysError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Answered, Ask, DeadlineError, Engine, Item
from recsys.serving.http.ids import check_columns
from recsys.serving.http.schemas import ID_BYTES, MOST_BATCH, MOST_HISTORY
from recsys.serving.oip.errors import ProtocolError, refusal
from recsys.serving.oip.messages import InferRequest
from recsys.serving.oip.models import OfferedModel, TensorSpec
from recsys.serving.oip.parameters import Parameters, read_parameters
from recsys.serving.oip.tensors import Tensor, byte_array

_Got = TypeVar("_Got")


@dataclass(frozen=True, slots=True)
class Inferred:
    """What became of a request.

    Attributes:
        outputs: of the model, in the order of its metadata.
        version: of the run that answered; None if several did.
        n_rows: how many rows were answered.
        answers: of the engine, for models that recommend.
        parameters: of the response: `unknown` items of histories, rows with a `fallback`; absent if 0.
    """

    outputs: tuple[Tensor, ...]
    version: str | None
    n_rows: int
    answers: tuple[Answered, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


async def infer(engine: Engine, model: OfferedModel, request: InferRequest) -> Inferred:
    """Answer a request.

    Raises:
        ProtocolError: its inputs or parameters are not what the model takes.
        RecsysError: as the engine's.
    """
    _check_inputs(model, request.inputs)
    parameters = read_parameters(request.parameters, model.kind)
    if model.kind == "similar":
        return await _similar(engine, model, request.inputs, parameters)
    if model.kind == "encode":
        return await _encode(engine, model, request.inputs, parameters)
    asks = _asks(model, request.inputs, parameters)
    for ask in asks[:1]:  # the context is that of all
        check_columns(ask, engine.models() if model.asked is None else (model.run,))
    return await _recommend(engine, model, asks, parameters)


async def _recommend(
    engine: Engine, model: OfferedModel, asks: list[Ask], parameters: Parameters
) -> Inferred:
    """Ranked items of users or histories."""
    answers: list[Answered] = []
    found_rows = await _within(parameters.timeout, engine.recommend_many(asks)) if asks else []
    for row, found in enumerate(found_rows):
        if isinstance(found, RecsysError):
            status, text = refusal(found)
            raise found if len(asks) == 1 or status == 500 else ProtocolError(f"row {row}: {text}", status)
        answers.append(found)
    versions = {answer.version for answer in answers} or {model.run.version}
    notes = {
        "unknown": sum(len(answer.history.unknown) for answer in answers),
        "fallback": sum(answer.fallback is not None for answer in answers),
    }
    return Inferred(
        outputs=_ranked(model, [answer.items for answer in answers], parameters.k),
        version=versions.pop() if len(versions) == 1 else None,
        n_rows=len(answers),
        answers=tuple(answers),
        parameters={name: number for name, number in notes.items() if number},
    )


async def _similar(
    engine: Engine, model: OfferedModel, inputs: dict[str, Tensor], parameters: Parameters
) -> Inferred:
    """Neighbours of items."""
    items = _raw_ids(inputs["item"], model.run.ids_are_int)

    async def of_all() -> list[tuple[Item, ...]]:
        return [await engine.similar(item, parameters.k, model.run.name) for item in items]

    rows = await _within(parameters.timeout, of_all())
    return Inferred(_ranked(model, rows, parameters.k), model.run.version, len(rows))


async def _encode(
    engine: Engine, model: OfferedModel, inputs: dict[str, Tensor], parameters: Parameters
) -> Inferred:
    """States of histories."""
    histories = _rows(model, inputs)
    states = np.empty((0, model.run.width), dtype=np.float32)
    if histories:
        asked = engine.encode([items for items, _ in histories], _times(model, histories), model.run.name)
        states = await _within(parameters.timeout, asked)
    tensor = Tensor("state", "FP32", states.shape, states.astype(np.float32, copy=False).reshape(-1))
    return Inferred((tensor,), model.run.version, len(histories))


async def _within(seconds: float | None, asked: Awaitable[_Got]) -> _Got:
    """An answer, if it comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except TimeoutError:
        raise DeadlineError("the request's own timeout is over") from None


def _check_inputs(model: OfferedModel, inputs: dict[str, Tensor]) -> None:
    """Exactly the inputs of the model's metadata, of one dimension."""
    wanted = {spec.name: spec for spec in model.inputs}
    for name in inputs:
        if name not in wanted:
            raise ProtocolError(f"unexpected input '{name}': model '{model.name}' takes {', '.join(wanted)}")
    for name, spec in wanted.items():
        if name not in inputs:
            raise ProtocolError(f"input '{name}' is missing: model '{model.name}' takes {', '.join(wanted)}")
        _check_tensor(inputs[name], spec)


def _check_tensor(tensor: Tensor, spec: TensorSpec) -> None:
    """Datatype and shape of an input; whole numbers may come in any width, and as text."""
    allowed = tensor.datatype == spec.datatype
    if spec.datatype == "INT64":
        is_id = spec.name not in ("lengths", "times")
        allowed = "INT" in tensor.datatype or (is_id and tensor.datatype == "BYTES")
    if not allowed:
        raise ProtocolError(f"input '{spec.name}' is {tensor.datatype}, the model takes {spec.datatype}")
    if len(tensor.shape) != 1:
        raise ProtocolError(f"input '{spec.name}' has shape {list(tensor.shape)}, the model takes [-1]")


def _asks(model: OfferedModel, inputs: dict[str, Tensor], parameters: Parameters) -> list[Ask]:
    """What the engine is asked, row by row."""
    common: dict[str, Any] = {
        "k": parameters.k,
        "exclude_seen": parameters.exclude_seen,
        "category": parameters.category,
        "at": parameters.at,
        "time_zone": parameters.time_zone,
        "context": parameters.context,
        "model": model.asked,
    }
    if model.kind == "recommend":
        users = _raw_ids(inputs["user"], model.run.user_ids_are_int)
        return [Ask(user=user, **common) for user in users]
    return [Ask(history=items, times=times, **common) for items, times in _rows(model, inputs)]


def _rows(model: OfferedModel, inputs: dict[str, Tensor]) -> list[tuple[list[RawId], list[int] | None]]:
    """Histories of a request, each with its times where the model takes them."""
    lengths = _whole_numbers(inputs["lengths"])
    _check_rows(len(lengths))
    if any(not 0 <= length <= MOST_HISTORY for length in lengths):
        raise ProtocolError(f"input 'lengths': histories have from 0 to {MOST_HISTORY} events")
    n_events = inputs["history"].shape[0]
    if sum(lengths) != n_events:
        raise ProtocolError(f"input 'lengths' adds up to {sum(lengths)}, 'history' has {n_events} elements")
    items = _raw_ids(inputs["history"], model.run.ids_are_int, rows=False)
    times = _whole_numbers(inputs["times"]) if "times" in inputs else None
    if times is not None and len(times) != n_events:
        raise ProtocolError(f"input 'times' has {len(times)} elements, 'history' has {n_events}")
    rows: list[tuple[list[RawId], list[int] | None]] = []
    end = 0
    for length in lengths:
        start, end = end, end + length
        rows.append((items[start:end], None if times is None else times[start:end]))
    return rows


def _times(
    model: OfferedModel, rows: Sequence[tuple[list[RawId], list[int] | None]]
) -> list[list[int]] | None:
    """Times of all rows, where the model takes them."""
    return [times or [] for _, times in rows] if model.run.needs_times else None


def _raw_ids(tensor: Tensor, as_int: bool, rows: bool = True) -> list[RawId]:
    """Raw ids of an input; one row each unless said otherwise."""
    if rows:
        _check_rows(tensor.shape[0])
    if tensor.datatype != "BYTES":
        return list(_whole_numbers(tensor))
    found: list[RawId] = []
    for place, value in enumerate(tensor.values):
        if len(value) > ID_BYTES:
            raise ProtocolError(f"input '{tensor.name}': element {place} is longer than {ID_BYTES} bytes")
        try:
            text = value.decode("utf-8")
            found.append(_number(text) if as_int else text)
        except ValueError:
            kind = "a whole number, as the ids of this model are" if as_int else "UTF-8"
            raise ProtocolError(f"input '{tensor.name}': element {place} is not {kind}") from None
    return found


def _number(text: str) -> int:
    """A whole number as it is written, and not otherwise: '07' and '+7' are no ids of 7."""
    number = int(text)
    if str(number) != text or not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _whole_numbers(tensor: Tensor) -> list[int]:
    """Elements of an integer input that fit 64 bits with a sign."""
    values: list[int] = tensor.values.tolist()
    if tensor.datatype == "UINT64" and any(value >= 2**63 for value in values):
        raise ProtocolError(f"input '{tensor.name}': an element does not fit INT64")
    return values


def _check_rows(n_rows: int) -> None:
    """At most so many answers of one request."""
    if n_rows > MOST_BATCH:
        raise ProtocolError(f"{n_rows} rows: {MOST_BATCH} are the most of one request")


def _ranked(model: OfferedModel, rows: Sequence[Sequence[Item]], k: int) -> tuple[Tensor, ...]:
    """`item`, `score` and `count`; rows of fewer than k items are padded with 0 or empty text, and 0."""
    as_int = model.run.ids_are_int
    shape = (len(rows), k)
    ids: list[Any] = []
    scores = np.zeros(shape, dtype=np.float32)
    for place, row in enumerate(rows):
        kept = row[:k]
        ids.extend(item.id if as_int else str(item.id).encode("utf-8") for item in kept)
        ids.extend([0 if as_int else b""] * (k - len(kept)))
        scores[place, : len(kept)] = [item.score for item in kept]
    item = (
        Tensor("item", "INT64", shape, np.array(ids, dtype=np.int64))
        if as_int
        else Tensor("item", "BYTES", shape, byte_array(ids))
    )
    counts = np.array([min(len(row), k) for row in rows], dtype=np.int32)
    return (
        item,
        Tensor("score", "FP32", shape, scores.reshape(-1)),
        Tensor("count", "INT32", counts.shape, counts),
    )
