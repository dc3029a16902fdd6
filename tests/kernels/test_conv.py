import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.conv import causal_conv, causal_conv_step
from tests.kernels.tensors import assert_near, offsets_of

NEAR = {"relative": 1e-5, "floor": 1e-7}

LENGTHS = (0, 1, 2, 3, 7, 0, 64, 65, 300)


def _inputs(
    lengths: tuple[int, ...] = LENGTHS, channels: int = 20, width: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": draw(sum(lengths), channels),
        "weight": draw(channels, width),
        "bias": draw(channels),
        "initial_state": draw(len(lengths), channels, width - 1),
    }


def _run(inputs: dict[str, Tensor], offsets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    arguments = {"bias": None, "return_state": True, **inputs, **options}
    result = causal_conv(offsets=offsets, **arguments)
    assert isinstance(result, tuple)
    return result


def _with_gradients(
    inputs: dict[str, Tensor], offsets: Tensor, dtype: torch.dtype, through: tuple[str, ...], **options: Any
) -> dict[str, Tensor]:
    leaves = {name: x.to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}
    y, state = _run(leaves, offsets, **options)
    generator = torch.Generator().manual_seed(1)
    results = {"y": y, "state": state}
    loss = sum(
        (results[name] * torch.randn(results[name].shape, generator=generator).to(dtype)).sum()
        for name in through
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    assert len(gradients) == len(leaves)
    return {"y": y.detach(), "state": state.detach(), **gradients}


def test_the_reference_computes_a_case_worked_by_hand() -> None:
    x = torch.tensor([[1.0], [2.0], [3.0], [10.0]])
    weight, bias = torch.tensor([[10.0, 1.0]]), torch.tensor([0.5])
    initial = torch.tensor([[[0.0]], [[7.0]], [[4.0]]])
    y, state = causal_conv(
        x,
        weight,
        bias,
        offsets_of((3, 0, 1)),
        activation=None,
        initial_state=initial,
        return_state=True,
        backend="reference",
    )
    assert y.flatten().tolist() == [1.5, 12.5, 23.5, 50.5]
    assert state.flatten().tolist() == [3.0, 7.0, 10.0]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_each_sequence_gets_what_torch_conv1d_gives_it(backend: str, width: int) -> None:
    inputs, offsets = _inputs(width=width), offsets_of(LENGTHS)
    y, state = _run(inputs, offsets, backend=backend)
    for i, x in enumerate(inputs["x"].split(LENGTHS)):
        padded = torch.cat([inputs["initial_state"][i].T, x]).double()
        if len(x):
            wanted = F.conv1d(
                padded.T[None], inputs["weight"].double()[:, None], inputs["bias"].double(), groups=x.shape[1]
            )
            torch.testing.assert_close(
                y[offsets[i] : offsets[i + 1]].double(), F.silu(wanted[0].T), rtol=1e-5, atol=1e-5
            )
        assert torch.equal(state[i], padded[-(width - 1) :].T.float())


@pytest.mark.parametrize("activation", ["silu", None])
def test_the_reference_has_true_gradients(activation: str | None) -> None:
    lengths = (0, 1, 2, 5)
    inputs = _inputs(lengths, channels=2, width=3)
    leaves = [x.double().requires_grad_() for x in inputs.values()]

    def run(x: Tensor, weight: Tensor, bias: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        values = {"x": x, "weight": weight, "bias": bias, "initial_state": initial}
        return _run(values, offsets_of(lengths), activation=activation)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 5, 64, 100])
def test_cpu_agrees_with_the_double_precision_reference(
    channels: int, width: int, activation: str | None
) -> None:
    inputs, offsets = _inputs(channels=channels, width=width), offsets_of(LENGTHS)
    for names in (("x", "weight", "bias", "initial_state"), ("x", "weight")):
        chosen = {name: inputs[name] for name in names}
        for through in (("y", "state"), ("y",)):
            wanted = _with_gradients(chosen, offsets, torch.float64, through, activation=activation)
            ours = _with_gradients(
                chosen, offsets, torch.float32, through, activation=activation, backend="cpu"
            )
            assert_near(ours, wanted, **NEAR)


def test_gradients_through_the_state_alone_reach_the_last_inputs() -> None:
    inputs, offsets = _inputs((5, 1, 0)), offsets_of((5, 1, 0))
    names = ("x", "initial_state")
    leaves = {k: v.clone().requires_grad_(k in names) for k, v in inputs.items()}
    _, state = _run(leaves, offsets, backend="cpu")
    upstream = torch.arange(state.numel(), dtype=torch.float32).view(state.shape)
    state.backward(upstream)
    dx, dinitial = leaves["x"].grad, leaves["initial_state"].grad
    assert dx is not None
    assert dinitial is not None
    assert torch.equal(dx[2:5], upstream[0].T)
    assert not dx[:2].any()
    assert torch.equal(dx[5], upstream[1, :, -1])
    assert torch.equal(dinitial[1, :, 1:], upstream[1, :, :2])
    assert torch.equal(dinitial[2], upstream[2])
    assert not dinitial[0].any()


def test_one_huge_sequence_is_as_exact_as_short_ones() -> None:
    lengths = (20_000, 0, 3)
    inputs, offsets = _inputs(lengths, channels=3), offsets_of(lengths)
    wanted = _with_gradients(inputs, offsets, torch.float64, ("y", "state"))
    assert_near(
        _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu"), wanted, **NEAR
    )


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch() -> None:
    lengths = (700, *LENGTHS, 900)
    inputs, offsets = _inputs(lengths, channels=100), offsets_of(lengths)
    whole = _with_gradients(inputs, offsets, torch.float32, ("y",), backend="cpu")
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(whole["y"].shape, generator=generator)
    for i in range(len(lengths)):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        x = inputs["x"][part].clone().requires_grad_()
        initial = inputs["initial_state"][i : i + 1].clone().requires_grad_()
        alone = {**inputs, "x": x, "initial_state": initial}
        y, state = _run(alone, offsets_of((lengths[i],)), backend="cpu")
        y.backward(upstream[part])
        assert torch.equal(y, whole["y"][part])
        assert torch.equal(state[0], whole["state"][i])
        assert x.grad is not None
        assert torch.equal(x.grad, whole["dx"][part])
        assert initial.grad is not None
        assert torch.equal(initial.grad[0], whole["dinitial_state"][i])


def test_changing_one_sequence_changes_no_bit_of_the_others() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    before = _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu")
    part = slice(int(offsets[6]), int(offsets[7]))
    changed = {**inputs, "x": inputs["x"].clone()}
    changed["x"][part] += 1
    after = _with_gradients(changed, offsets, torch.float32, ("y", "state"), backend="cpu")
    others = torch.ones(sum(LENGTHS), dtype=torch.bool)
    others[part] = False
    for name in ("y", "dx"):
        assert torch.equal(after[name][others], before[name][others])
        assert not torch.equal(after[name][part], before[name][part])


def test_every_run_and_every_thread_count_gives_the_same_bits() -> None:
    lengths = (1500, *LENGTHS, *(40,) * 60)
    inputs, offsets = _inputs(lengths, channels=130), offsets_of(lengths)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            runs.append(_with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(run[name], value), name


@pytest.mark.parametrize("width", [2, 3, 4])
def test_an_input_reaches_exactly_the_next_width_events_of_its_sequence(width: int) -> None:
    lengths = (3, 40, 5)
    inputs, offsets = _inputs(lengths, width=width), offsets_of(lengths)
    clean, _ = _run(inputs, offsets, backend="cpu")
    for event in (0, 3, 20, 34, 42):
        spoiled = inputs["x"].clone()
        spoiled[event] = torch.nan
        y, _ = _run({**inputs, "x": spoiled}, offsets, backend="cpu")
        end = int(offsets[offsets > event][0])
        hit = torch.zeros(len(y), dtype=torch.bool)
        hit[event : min(event + width, end)] = True
        assert y[hit].isnan().all()
        assert torch.equal(y[~hit], clean[~hit])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_steps_one_by_one_agree_with_the_whole(backend: str) -> None:
    lengths = (12, 12)
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    y, final = _run(inputs, offsets, backend=backend)
    state, rows = inputs["initial_state"], inputs["x"].view(2, 12, -1)
    for t in range(12):
        out, state = causal_conv_step(state, rows[:, t], inputs["weight"], inputs["bias"])
        torch.testing.assert_close(out, y.view(2, 12, -1)[:, t], rtol=1e-5, atol=1e-5)
    assert torch.equal(state, final)


def test_a_step_leaves_the_given_state_alone() -> None:
    inputs = _inputs((1, 1))
    state = inputs["initial_state"].clone()
    causal_conv_step(state, inputs["x"], inputs["weight"], inputs["bias"])
    assert torch.equal(state, inputs["initial_state"])


@pytest.mark.parametrize("cut", [0, 1, 2, 31, 32, 33, 70])
def test_a_sequence_cut_anywhere_continues_from_its_state(cut: int) -> None:
    inputs = _inputs((70,))
    whole, final = _run(inputs, offsets_of((70,)), backend="cpu")
    first, state = _run({**inputs, "x": inputs["x"][:cut]}, offsets_of((cut,)), backend="cpu")
    rest = {**inputs, "x": inputs["x"][cut:], "initial_state": state}
    second, end = _run(rest, offsets_of((70 - cut,)), backend="cpu")
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, final)


def test_strided_inputs_give_the_same_bits_and_are_not_written() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    wide = torch.stack([inputs["x"], inputs["x"] + 1], dim=1).flatten(1)
    channels = inputs["x"].shape[1]
    strided = {
        "x": wide[:, :channels],
        "weight": inputs["weight"].T.contiguous().T,
        "bias": torch.stack([inputs["bias"]] * 2, dim=1)[:, 0],
        "initial_state": inputs["initial_state"].transpose(1, 2).contiguous().transpose(1, 2),
    }
    assert not any(x.is_contiguous() for x in strided.values())
    saved = {name: x.clone() for name, x in strided.items()}
    wanted = _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu")
    ours = _run(strided, offsets, backend="cpu")
    assert torch.equal(ours[0], wanted["y"])
    assert torch.equal(ours[1], wanted["state"])
    assert all(torch.equal(x, saved[name]) for name, x in strided.items())
    for x in (inputs["x"].T.contiguous().T, inputs["x"].repeat_interleave(2, dim=1)[:, ::2]):
        assert torch.equal(_run({**inputs, "x": x}, offsets, backend="cpu")[0], wanted["y"])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("sequences", [0, 3])
def test_a_batch_without_events_keeps_its_states(backend: str, sequences: int) -> None:
    lengths = (0,) * sequences
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    dtype = torch.float64 if backend == "reference" else torch.float32
    results = _with_gradients(inputs, offsets, dtype, ("y", "state"), backend=backend)
    assert results["y"].shape == (0, 20)
    assert torch.equal(results["state"], inputs["initial_state"].to(dtype))
    assert not results["dweight"].any()
    assert not results["dbias"].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single_and_cast_back(dtype: torch.dtype) -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    halves = {name: x.to(dtype) for name, x in inputs.items()}
    y, state = _run(halves, offsets)
    wanted, _ = _run({name: x.float() for name, x in halves.items()}, offsets, backend="cpu")
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    assert torch.equal(y, wanted.to(dtype))


def test_without_return_state_only_y_comes_back() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    y = causal_conv(inputs["x"], inputs["weight"], None, offsets.long())
    assert isinstance(y, Tensor)
    assert y.shape == inputs["x"].shape


def test_the_compiled_operation_is_registered_soundly() -> None:
    from recsys.kernels.conv import cpu

    lengths = (3, 0, 4)
    inputs, offsets = _inputs(lengths, channels=3), offsets_of(lengths)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    arguments = (leaves["x"], leaves["weight"], leaves["bias"], offsets, True, leaves["initial_state"], True)
    torch.library.opcheck(cpu.forward.operator, arguments)


GOOD = _inputs((2, 3), channels=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(5)}, "x has shape (5,), want (N, d)"),
        ({"x": torch.zeros(5, 4, dtype=torch.int64)}, "x has dtype torch.int64"),
        ({"weight": torch.zeros(4, 5)}, "weight has shape (4, 5), want (d, width) = (4, 2 to 4)"),
        ({"weight": torch.zeros(4, 1, 4)}, "of a Conv1d give weight[:, 0]"),
        ({"weight": torch.zeros(3, 4)}, "weight has shape (3, 4), want (d, width) = (4, 4)"),
        ({"bias": torch.zeros(5)}, "bias has shape (5,), want (d,) = (4,) to go with x (5, 4)"),
        ({"initial_state": torch.zeros(2, 4, 4)}, "initial_state has shape (2, 4, 4)"),
        ({"activation": "relu"}, "activation is 'relu', use 'silu' or None"),
        ({"backend": "cuda"}, "backend is 'cuda', use one of"),
        ({"x": torch.zeros(5, 4, dtype=torch.float64), "backend": "cpu"}, "not torch.float64"),
        ({"offsets": torch.tensor([0.0, 5.0])}, "offsets has dtype torch.float32, want int32"),
        ({"offsets": torch.tensor([[0, 5]])}, "offsets has shape (1, 2), want (B + 1,)"),
        ({"offsets": torch.tensor([0, 2, 4])}, "offsets runs from 0 to 4, want 0 to 5"),
        ({"offsets": torch.tensor([0, 6, 5])}, "offsets falls from 6 to 5 at index 2"),
        ({"offsets": None}, "offsets is missing"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {**GOOD, "offsets": offsets_of((2, 3)), **changes}
    with pytest.raises(ArgumentError, match=re.escape(message)) as error:
        causal_conv(**arguments)
    assert "\n" not in str(error.value)


def test_a_step_names_a_wrong_state() -> None:
    with pytest.raises(ArgumentError, match="state has shape"):
        causal_conv_step(torch.zeros(5, 4, 2), GOOD["x"], GOOD["weight"], GOOD["bias"])
