from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from recsys.kernels.shared.operators import CpuOperator

called: list[torch.Size] = []


def _double(x: Tensor, more: list[Tensor]) -> Tensor:
    called.append(x.shape)
    return 2 * x + sum(float(each.sum()) for each in more)


@pytest.fixture(scope="module")
def double() -> CpuOperator:
    operator = CpuOperator("recsys_tests::double", _double)
    operator.register_fake(lambda x, more: torch.empty_like(x))
    operator.register_autograd(
        lambda ctx, grad: (3 * grad, []), setup_context=lambda ctx, inputs, output: None
    )
    return operator


def test_without_gradients_the_function_itself_is_called(
    double: CpuOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("went through torch's dispatcher")

    monkeypatch.setattr(double, "operator", refused)
    with torch.no_grad():
        assert double(torch.ones(2), [torch.ones(3)]).tolist() == [5.0, 5.0]
    with torch.inference_mode():
        assert double(torch.ones(2), []).tolist() == [2.0, 2.0]
    with pytest.raises(AssertionError, match="dispatcher"):
        double(torch.ones(2), [])


def test_autograd_and_fake_tensors_go_through_torch(double: CpuOperator) -> None:
    x = torch.ones(2, requires_grad=True)
    double(x, []).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]  # the registered rule, not the function's own
    called.clear()
    with torch.no_grad(), FakeTensorMode() as mode:
        made = double(mode.from_tensor(torch.ones(4)), [])
    assert made.shape == (4,)
    assert called == []
