"""AdamW on some rows of a table on the GPU, in float32 whatever the type of the table."""

from torch import Tensor

from recsys.kernels.lazy_adamw.triton_update import update_kernel
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["update_rows"]


def update_rows(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    ids: Tensor,
    gradient: Tensor,
    *,
    step_size: float,
    beta1: float,
    beta2: float,
    root: float,
    epsilon: float,
    keep: float,
) -> None:
    """Update rows `ids` of contiguous tensors in place; arguments as in `reference.update_rows`."""
    width = weight.shape[1]
    config = choose_config("lazy_adamw", "update", architecture(weight), width=width)
    slices = -(-width // config.blocks["BLOCK_D"])
    launch(
        update_kernel,
        -(-len(ids) // config.blocks["BLOCK_U"]) * slices,
        config,
        ids.contiguous(),
        weight,
        mean,
        square,
        gradient.contiguous(),
        len(ids),
        width,
        slices,
        step_size,
        1 - beta1,
        beta2,
        1 - beta2,
        root,
        epsilon,
        keep,
    )
