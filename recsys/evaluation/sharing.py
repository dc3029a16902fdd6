"""A pass over the users that several processes share."""

from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Sharing", "whole"]

Number = TypeVar("Number", bound=np.number[Any])


class Sharing(Protocol):
    """The processes: number `rank` of `size` takes every size-th batch of users, from its rank on."""

    rank: int
    size: int

    def add_disjoint(self, values: Tensor) -> Tensor:
        """The sum over processes of tensors that are zero where another one's are not."""
        ...


def whole(own: NDArray[Number], sharing: Sharing | None) -> NDArray[Number]:
    """Numbers of all rows, of those that each process filled in; zero elsewhere."""
    if sharing is None:
        return own
    found: NDArray[Number] = sharing.add_disjoint(torch.from_numpy(own)).numpy()
    return found
