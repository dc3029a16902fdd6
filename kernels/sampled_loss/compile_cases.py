"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.sampled_loss.autograd import LossInputs
from recsys.kernels.sampled_loss.form import BCE, BPR, SOFTMAX, Form
from recsys.kernels.sampled_loss.triton import BACKEND

__all__ = ["record_all"]


def record_all() -> None:
    """LossKernel each form at each tile, with gradients and without, with the corrections that it takes."""
    n = 2
    targets, scale, own_q = torch.zeros(n, dtype=torch.int64), torch.zeros(n), torch.zeros(n)
    for kind in (SOFTMAX, BCE, BPR):
        corrections = ((False, False), (True, False), (True, True)) if kind == SOFTMAX else ((False, False),)
        for width, count in ((32, 16), (64, 16), (128, 512)):
            h = torch.zeros(n, width)
            for shape in ((n, count), (count,)):
                negatives = torch.zeros(shape, dtype=torch.int64)
                compute = BACKEND.own_negatives if len(shape) == 2 else BACKEND.shared_negatives
                for by_log_q, by_own in corrections:
                    inputs = LossInputs(
                        targets,
                        negatives,
                        targets,
                        negatives,
                        torch.zeros(shape) if by_log_q else None,
                        own_q if by_own else None,
                        Form(kind),
                        1.0,
                        False,
                    )
                    for need_gradients in (False, True):
                        compute(h, h, scale, inputs, need_gradients)
        for hashes in (2, 4):
            hashed = torch.zeros(n, 16, hashes, dtype=torch.int64)
            inputs = LossInputs(
                targets, hashed[..., 0], hashed[:, 0], hashed, None, None, Form(kind), 1.0, False
            )
            BACKEND.own_negatives(torch.zeros(n, 64), torch.zeros(n, 64), scale, inputs, True)
