"""What the OpenAPI document says of requests that routes read themselves: JSON, maybe with bytes behind."""

from typing import Any

from recsys.serving.oip.messages import MAX_ID_BYTES, MAX_TENSORS
from recsys.serving.oip.tensors import MAX_DIMS, MAX_ELEMENTS, NUMBERS

_PARAMETERS: dict[str, Any] = {"type": "object"}
_INPUT: dict[str, Any] = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"enum": [*NUMBERS, "BYTES"]},
        "shape": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_DIMS,
            "items": {"type": "integer", "minimum": 0, "maximum": MAX_ELEMENTS},
        },
        "parameters": _PARAMETERS,
        "data": {"type": "array"},
    },
}
_OUTPUT: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": MAX_ID_BYTES // 4},
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "maxItems": MAX_TENSORS, "items": _INPUT},
        "outputs": {"type": "array", "maxItems": MAX_TENSORS, "items": _OUTPUT},
    },
}
_EXAMPLE = {
    "id": "7",
    "inputs": [{"name": "user", "datatype": "INT64", "shape": [1], "data": [1]}],
    "parameters": {"k": 3},
}

INFER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 1},
            "description": "Bytes of the JSON, where the bytes of inputs lie behind it.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _REQUEST, "example": _EXAMPLE}},
    },
}
"""Of the routes that ask a model."""

INDEX: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                "example": {"ready": True},
            }
        },
    }
}
"""Of the route that lists the repository."""

LOAD: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"parameters": _PARAMETERS}},
                "example": {},
            }
        },
    }
}
"""Of the routes that load and unload."""
