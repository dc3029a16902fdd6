"""Requests and responses of the protocol, as bytes and as objects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.tensors import (
    Tensor,
    tensor_from_bytes,
    tensor_from_json,
    tensor_to_bytes,
    tensor_to_json,
)

MAX_TENSORS = 16
"""Inputs, and outputs, of one request."""

MAX_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class OutputWanted:
    """An output that was asked for; `binary` is None where the request's own wish decides."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What was asked.

    Attributes:
        id: to be echoed; None without one.
        parameters: of the request, without those of the protocol itself.
        inputs: by name.
        outputs: asked for; empty is all of them.
        binary_output: whether outputs are wanted as bytes, unless one says otherwise.
    """

    inputs: dict[str, Tensor]
    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[OutputWanted, ...] = ()
    binary_output: bool = False


def read_request(body: bytes, header_length: str | None) -> InferRequest:
    """A request's body.

    Args:
        body: JSON, then the bytes of those inputs that have a `binary_data_size`, in their order.
        header_length: value of `Inference-Header-Content-Length`: bytes of the JSON; None if all of it is.

    Raises:
        ProtocolError: it is malformed; the line says where.
    """
    split = _split(body, header_length)
    message = read_object(body[:split])
    parameters = _parameters(message, "request")
    binary_output = _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    return InferRequest(
        id=_request_id(message.get("id")),
        parameters=parameters,
        inputs=_inputs(message, body[split:], header_length is not None),
        outputs=_outputs(message),
        binary_output=binary_output,
    )


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object; NaN, infinities, and lists nested hundreds deep are refused."""
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ProtocolError(f"malformed JSON: {error}") from None
    if not isinstance(found, dict):
        raise ProtocolError("the JSON of a request must be an object")
    return found


def write_response(
    head: dict[str, Any], outputs: Sequence[Tensor], request: InferRequest
) -> tuple[bytes, int | None]:
    """A response's body.

    Args:
        head: `model_name` and what else stands before the outputs.
        outputs: of the model.
        request: says which of them are wanted, and which as bytes.

    Returns:
        The body, and how many bytes of it are JSON: None if all of them.

    Raises:
        ProtocolError: an output was asked for that is not there, or JSON cannot hold one.
    """
    by_name = {tensor.name: tensor for tensor in outputs}
    written = []
    chunks = []
    for wanted in request.outputs or [OutputWanted(name) for name in by_name]:
        if wanted.name not in by_name:
            raise ProtocolError(f"unexpected output '{wanted.name}': the model has {', '.join(by_name)}")
        tensor = by_name[wanted.name]
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if request.binary_output if wanted.binary is None else wanted.binary:
            chunks.append(tensor_to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            entry["data"] = tensor_to_json(tensor)
        written.append(entry)
    text = json.dumps({**head, "outputs": written}, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([text, *chunks]), len(text) if chunks else None


def _split(body: bytes, header_length: str | None) -> int:
    """Where the JSON ends."""
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= 10):
        raise ProtocolError("Inference-Header-Content-Length must be a number of bytes")
    split = int(header_length)
    if split == 0:
        raise ProtocolError(
            "Inference-Header-Content-Length is 0: raw binary requests are not supported, name inputs in JSON"
        )
    if split > len(body):
        raise ProtocolError(f"Inference-Header-Content-Length is {split}, the body has {len(body)} bytes")
    return split


def _inputs(message: dict[str, Any], binary: bytes, has_header: bool) -> dict[str, Tensor]:
    """Inputs by name; every byte behind the JSON belongs to one."""
    found: dict[str, Tensor] = {}
    place = 0
    for entry in _entries(message.get("inputs"), "inputs"):
        name = entry["name"]
        if name in found:
            raise ProtocolError(f"input '{name}' is there twice")
        datatype = entry.get("datatype")
        if not isinstance(datatype, str):
            raise ProtocolError(f"input '{name}': datatype must be a string")
        parameters = _parameters(entry, f"input '{name}'")
        if "shared_memory_region" in parameters:
            raise ProtocolError(f"input '{name}': shared memory is not supported")
        size = parameters.get("binary_data_size")
        data = entry.get("data")
        if (size is None) == (data is None):
            raise ProtocolError(f"input '{name}' must have either data or a binary_data_size")
        if size is None:
            found[name] = tensor_from_json(name, datatype, entry.get("shape"), data)
            continue
        if type(size) is not int or size < 0:
            raise ProtocolError(f"input '{name}': binary_data_size must be a number of bytes")
        if not has_header:
            raise ProtocolError(
                f"input '{name}' has a binary_data_size, the request no Inference-Header-Content-Length"
            )
        if size > len(binary) - place:
            raise ProtocolError(
                f"input '{name}': binary_data_size is {size}, the body has {len(binary) - place} bytes left"
            )
        found[name] = tensor_from_bytes(name, datatype, entry.get("shape"), binary[place : place + size])
        place += size
    if place != len(binary):
        raise ProtocolError(f"{len(binary) - place} bytes of the body belong to no input")
    return found


def _outputs(message: dict[str, Any]) -> tuple[OutputWanted, ...]:
    """Outputs that are asked for."""
    if message.get("outputs") is None:
        return ()
    found: dict[str, OutputWanted] = {}
    for entry in _entries(message["outputs"], "outputs"):
        name = entry["name"]
        if name in found:
            raise ProtocolError(f"output '{name}' is asked for twice")
        parameters = _parameters(entry, f"output '{name}'")
        for refused in ("shared_memory_region", "classification"):
            if refused in parameters:
                raise ProtocolError(f"output '{name}': parameter '{refused}' is not supported")
        binary = parameters.get("binary_data")
        found[name] = OutputWanted(
            name, None if binary is None else _flag(binary, f"output '{name}': binary_data")
        )
    return tuple(found.values())


def _entries(listed: object, what: str) -> list[dict[str, Any]]:
    """Named objects of a list."""
    if not isinstance(listed, list):
        raise ProtocolError(f"{what} must be a list of objects")
    if len(listed) > MAX_TENSORS:
        raise ProtocolError(f"{len(listed)} {what}: {MAX_TENSORS} are the most")
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ProtocolError(f"each of {what} must be an object with a name")
    return listed


def _parameters(entry: dict[str, Any], what: str) -> dict[str, Any]:
    """Parameters of a request, an input or an output."""
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ProtocolError(f"parameters of {what} must be an object")
    return dict(found)


def _request_id(found: object) -> str | None:
    """The id that is echoed."""
    if found is None:
        return None
    if not isinstance(found, str) or len(found.encode()) > MAX_ID_BYTES:
        raise ProtocolError(f"id must be a string of at most {MAX_ID_BYTES} bytes")
    return found


def _flag(found: object, what: str) -> bool:
    """True or false."""
    if not isinstance(found, bool):
        raise ProtocolError(f"{what} must be true or false")
    return found
