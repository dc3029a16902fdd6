"""Options, queries and vectors as an index takes them, or one line on what is wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import build as build_config
from recsys.errors import ArgumentError
from recsys.kernels.rescoring import all_finite
from recsys.retrieval.options import IndexOptions

Numbers = Tensor | NDArray[Any]


def check_options(options: Mapping[str, object] | IndexOptions | None) -> IndexOptions:
    """The options themselves, or built from some of their fields.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    if isinstance(options, IndexOptions):
        return options
    return build_config(IndexOptions, options or {}, where="index")


def as_array(numbers: Numbers) -> NDArray[Any]:
    """The numbers as an array on the host."""
    return numbers.cpu().numpy() if isinstance(numbers, Tensor) else numbers


def as_tensor(numbers: Numbers, device: torch.device) -> Tensor:
    """The numbers as a tensor on a device."""
    return (numbers if isinstance(numbers, Tensor) else torch.from_numpy(numbers)).to(device)


def check_queries(queries: Tensor | NDArray[np.floating[Any]]) -> Numbers:
    """Queries as (b, d) float32, tensor for tensor and array for array; refused as by `check_vectors`."""
    if isinstance(queries, np.ndarray) and queries.dtype.kind == "f" and queries.ndim == 2:
        array = np.array(queries, dtype=np.float32, order="C")
        if all_finite(array.reshape(-1)):
            return array
    checked = check_vectors("queries", queries)
    return checked if isinstance(queries, Tensor) else checked.numpy()


def check_vectors(name: str, vectors: Tensor | NDArray[np.floating[Any]]) -> Tensor:
    """Vectors as a (rows, width) float32 tensor.

    Raises:
        ArgumentError: not floating, not two-dimensional, or not finite.
    """
    if isinstance(vectors, np.ndarray) and vectors.dtype.kind == "f":
        # torch has no read-only tensors; asarray would warn about a memory map.
        tensor = torch.from_numpy(np.array(vectors, dtype=np.float32))
    elif isinstance(vectors, Tensor) and vectors.is_floating_point():
        tensor = vectors.detach().to(torch.float32).contiguous()
    else:
        kind = getattr(vectors, "dtype", type(vectors).__name__)
        raise ArgumentError(f"{name} is {kind}: give floating numbers, (rows, width)")
    if tensor.dim() != 2:
        raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}: give two dimensions, (rows, width)")
    # numpy takes a tenth of torch's time for a single query.
    if tensor.device.type == "cpu" and np.isfinite(tensor.numpy()).all():
        return tensor
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        row = int((~finite).any(dim=1).nonzero()[0, 0])
        raise ArgumentError(f"{name} row {row} holds NaN or infinity: every number must be finite float32")
    return tensor
