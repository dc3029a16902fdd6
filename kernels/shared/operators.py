"""Operators of torch that cost nothing where nobody watches them.

`torch.library.custom_op` makes a function known to autograd and to torch.compile. Its first call imports the
compiler (0.9 s of processor time, for an answer that needs none of it), and every call passes through the
dispatcher. Without gradients, compiler and tensors of another kind the function itself is called.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CpuOperator", "cpu_operator"]


class CpuOperator:
    """A function as an operator on CPU tensors, called directly where neither autograd nor compiler watches.

    Attributes:
        operator: what torch knows of it.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Define the operator.

        Args:
            name: as in ``"recsys::rotate_cpu"``.
            function: of tensors and plain values, typed as `torch.library.custom_op` reads it; changes none
                of its arguments.
        """
        self._function = function
        self.operator = torch.library.custom_op(name, function, mutates_args=(), device_types="cpu")
        self.register_fake = self.operator.register_fake
        self.register_autograd = self.operator.register_autograd
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, through torch's dispatcher if it has to know."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not _plain((*args, *kwargs.values())):
            return self.operator(*args, **kwargs)
        return self._function(*args, **kwargs)


def cpu_operator(name: str) -> Callable[[Callable[..., Any]], CpuOperator]:
    """Decorator: the function becomes a `CpuOperator` of this name."""
    return lambda function: CpuOperator(name, function)


def _plain(values: tuple[Any, ...]) -> bool:
    """Whether all tensors are plain ones in memory: neither fake, nor a subclass, nor elsewhere."""
    for value in values:
        if isinstance(value, Tensor):
            if type(value) not in (Tensor, torch.nn.Parameter) or value.device.type != "cpu":
                return False
        elif isinstance(value, list) and not _plain(tuple(value)):
            return False
    return True
