"""Tensors of the protocol: JSON or binary in, JSON or binary out.

Nothing is believed: what a shape promises is compared with what is there before anything is allocated.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.serving.oip.errors import ProtocolError

MAX_DIMS = 8
MAX_ELEMENTS = 2**20
"""Elements of one tensor: an element may take four bytes of a body, and ten times that once decoded."""

NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes whose elements have one size, as they lie in a body; BYTES is the other one."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named array.

    Attributes:
        name: of the input or output.
        datatype: one of `NUMBERS`, or "BYTES".
        shape: of the array.
        values: (product of the shape,) elements in row-major order; `bytes` objects for BYTES.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: npt.NDArray[Any]


def tensor_from_json(name: str, datatype: str, shape: object, data: object) -> Tensor:
    """A tensor of its `data` in JSON, flat or nested as its shape is.

    Raises:
        ProtocolError: datatype, shape or an element is not what the protocol allows.
    """
    dims, n_elements = _checked_shape(name, datatype, shape)
    if not isinstance(data, list):
        raise ProtocolError(f"input '{name}': data must be a list")
    values = _flattened(name, dims, data)
    if len(values) != n_elements:
        raise ProtocolError(
            f"input '{name}': shape {list(dims)} holds {n_elements} elements, data has {len(values)}"
        )
    return Tensor(name, datatype, dims, _array(name, datatype, values))


def tensor_from_bytes(name: str, datatype: str, shape: object, raw: bytes) -> Tensor:
    """A tensor of its bytes: little-endian numbers, or each element's uint32 length and its bytes.

    Raises:
        ProtocolError: datatype or shape is not what the protocol allows, or the bytes do not fill the shape.
    """
    dims, n_elements = _checked_shape(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(name, datatype, dims, _byte_strings(name, n_elements, raw))
    dtype = NUMBERS[datatype]
    if len(raw) != n_elements * dtype.itemsize:
        raise ProtocolError(
            f"input '{name}': shape {list(dims)} of {datatype} takes {n_elements * dtype.itemsize} bytes, "
            f"binary_data_size is {len(raw)}"
        )
    if datatype == "BOOL" and any(byte > 1 for byte in raw):
        raise ProtocolError(f"input '{name}': bytes of BOOL are 0 or 1")
    return Tensor(name, datatype, dims, np.frombuffer(raw, dtype=dtype))


def tensor_to_json(tensor: Tensor) -> list[Any]:
    """Elements of a tensor as JSON has them, flat.

    Raises:
        ProtocolError: JSON cannot hold an element: NaN, an infinity, bytes that are no UTF-8.
    """
    if tensor.datatype == "BYTES":
        try:
            return [value.decode("utf-8") for value in tensor.values]
        except UnicodeDecodeError:
            raise ProtocolError(
                f"output '{tensor.name}' holds bytes that are no UTF-8: ask for it with binary_data=true"
            ) from None
    if tensor.values.dtype.kind == "f" and not np.isfinite(tensor.values).all():
        raise ProtocolError(
            f"output '{tensor.name}' holds numbers that JSON lacks: ask for it with binary_data=true"
        )
    values: list[Any] = tensor.values.tolist()
    return values


def tensor_to_bytes(tensor: Tensor) -> bytes:
    """Elements of a tensor as they lie in a body."""
    if tensor.datatype != "BYTES":
        return tensor.values.astype(NUMBERS[tensor.datatype], copy=False).tobytes()
    return b"".join(part for value in tensor.values for part in (_LENGTH.pack(len(value)), value))


def byte_array(values: list[bytes]) -> npt.NDArray[Any]:
    """(n,) object array of byte strings."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _checked_shape(name: str, datatype: str, shape: object) -> tuple[tuple[int, ...], int]:
    """Shape and number of elements of an input."""
    if datatype not in NUMBERS and datatype != "BYTES":
        raise ProtocolError(
            f"input '{name}': datatype '{datatype}' is none of {', '.join([*NUMBERS, 'BYTES'])}"
        )
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_DIMS:
        raise ProtocolError(f"input '{name}': shape must be a list of 1 to {MAX_DIMS} sizes")
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_ELEMENTS:
            raise ProtocolError(
                f"input '{name}': sizes of a shape are whole numbers from 0 to {MAX_ELEMENTS}"
            )
    n_elements = math.prod(shape)
    if n_elements > MAX_ELEMENTS:
        raise ProtocolError(
            f"input '{name}': shape {shape} holds {n_elements} elements; {MAX_ELEMENTS} are the most"
        )
    return tuple(shape), n_elements


def _flattened(name: str, dims: tuple[int, ...], data: list[Any]) -> list[Any]:
    """Elements of flat or nested lists, row-major."""
    if not any(isinstance(element, list) for element in data):
        return data
    level: list[Any] = [data]
    for size in dims:
        if any(not isinstance(row, list) or len(row) != size for row in level):
            raise ProtocolError(f"input '{name}': data is nested otherwise than its shape {list(dims)}")
        level = [element for row in level for element in row]
    if any(isinstance(element, list) for element in level):
        raise ProtocolError(f"input '{name}': data is nested deeper than its shape {list(dims)}")
    return level


def _array(name: str, datatype: str, values: list[Any]) -> npt.NDArray[Any]:
    """(n,) elements of JSON in a datatype."""
    kinds = set(map(type, values))
    if datatype == "BYTES":
        if not kinds <= {str}:
            raise ProtocolError(f"input '{name}': elements of BYTES are strings in JSON")
        return byte_array([value.encode("utf-8") for value in values])
    dtype = NUMBERS[datatype]
    if dtype.kind == "b":
        if not kinds <= {bool}:
            raise ProtocolError(f"input '{name}': elements of BOOL are true or false")
    elif dtype.kind == "f":
        return _floats(name, datatype, values, kinds)
    else:
        limits = np.iinfo(dtype)
        if not kinds <= {int}:
            raise ProtocolError(f"input '{name}': elements of {datatype} are whole numbers")
        if values and not (limits.min <= min(values) and max(values) <= limits.max):
            raise ProtocolError(
                f"input '{name}': elements of {datatype} are from {limits.min} to {limits.max}"
            )
    return np.array(values, dtype=dtype)


def _floats(name: str, datatype: str, values: list[Any], kinds: set[type]) -> npt.NDArray[Any]:
    """(n,) floating point numbers of JSON; those that the datatype has no number for are refused."""
    if not kinds <= {int, float}:
        raise ProtocolError(f"input '{name}': elements of {datatype} are numbers")
    try:
        with np.errstate(over="ignore"):
            found = np.array(values, dtype=np.float64).astype(NUMBERS[datatype])
    except OverflowError:  # a whole number of hundreds of digits
        found = np.array([np.inf], dtype=NUMBERS[datatype])
    if not np.isfinite(found).all():
        raise ProtocolError(f"input '{name}': an element is too large for {datatype}")
    return found


def _byte_strings(name: str, n_elements: int, raw: bytes) -> npt.NDArray[Any]:
    """(n,) byte strings of their lengths and bytes."""
    if n_elements * _LENGTH.size > len(raw):
        raise ProtocolError(
            f"input '{name}': {n_elements} elements of BYTES take {n_elements * _LENGTH.size} bytes or more, "
            f"binary_data_size is {len(raw)}"
        )
    values = []
    place = 0
    for element in range(n_elements):
        start = place + _LENGTH.size
        if start > len(raw):
            raise ProtocolError(
                f"input '{name}': no length before element {element}: its bytes are at an end"
            )
        (length,) = _LENGTH.unpack_from(raw, place)
        place = start + length
        if place > len(raw):
            raise ProtocolError(
                f"input '{name}': element {element} has {length} bytes, {len(raw) - start} are left"
            )
        values.append(raw[start:place])
    if place != len(raw):
        raise ProtocolError(
            f"input '{name}': {len(raw) - place} bytes are left behind its {n_elements} elements"
        )
    return byte_array(values)
