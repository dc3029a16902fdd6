import pytest
import torch

from recsys.kernels.lazy_adamw import update_rows


@pytest.mark.parametrize(
    ("rows", "touched", "width"), [(1, 0, 5), (7, 1, 16), (40, 33, 50), (60, 60, 64), (9, 4, 200)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_steps_are_those_of_the_definition(
    rows: int, touched: int, width: int, dtype: torch.dtype, device: torch.device
) -> None:
    draws = torch.Generator().manual_seed(rows)
    start = torch.randn(rows, width, generator=draws)
    tables = {
        backend: [
            start.to(device, kind),
            *(torch.zeros(rows, width, device=device, dtype=kind) for _ in "mv"),
        ]
        for backend, kind in (("reference", torch.float64), ("triton", dtype))
    }
    untouched = torch.ones(rows, dtype=torch.bool, device=device)
    for step in range(1, 4):
        ids = torch.randperm(rows, generator=draws)[:touched].to(device)
        untouched[ids] = False
        gradient = torch.randn(touched, width, generator=draws).to(device)
        for backend, (weight, mean, square) in tables.items():
            update_rows(
                weight,
                mean,
                square,
                ids,
                gradient,
                step=step,
                learning_rate=0.05,
                betas=(0.9, 0.98),
                weight_decay=0.1,
                backend=backend,
            )
    bound = 1e-6 if dtype == torch.float32 else 3e-3
    for ours, exact in zip(tables["triton"], tables["reference"], strict=True):
        assert float((ours.double() - exact).norm()) <= bound * float(exact.norm())
    assert torch.equal(tables["triton"][0][untouched].cpu(), start.to(dtype)[untouched.cpu()])
