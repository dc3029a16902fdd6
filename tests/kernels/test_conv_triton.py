from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.conv import causal_conv
from recsys.kernels.shared.launching import Config, interpreting
from recsys.kernels.shared.launching.configs import read_configs
from recsys.kernels.shared.launching.recording import record_launches
from tests.kernels.tensors import offsets_of

pytest.importorskip("triton")

LENGTHS = (0, 1, 2, 3, 7, 0, 63, 64, 65, 0)
NAMES = ("x", "weight", "bias", "initial_state")


def _inputs(
    lengths: tuple[int, ...] = LENGTHS, channels: int = 20, width: int = 4, names: tuple[str, ...] = NAMES
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (sum(lengths), channels),
        "weight": (channels, width),
        "bias": (channels,),
        "initial_state": (len(lengths), channels, width - 1),
    }
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: drawn[name] for name in names}


def _with_gradients(
    inputs: dict[str, Tensor],
    lengths: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    *,
    backend: str | None = "triton",
    through: tuple[str, ...] = ("y", "state"),
    **options: Any,
) -> dict[str, Tensor]:
    """Outputs and the gradients of all inputs; only x and y are in half precision, if asked for."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {
        name: x.to(device, dtype if name == "x" else wide, copy=True).requires_grad_()
        for name, x in inputs.items()
    }
    arguments = {"bias": None, **leaves, **options}
    y, state = causal_conv(
        offsets=offsets_of(lengths, device), return_state=True, backend=backend, **arguments
    )
    generator = torch.Generator().manual_seed(1)
    results = {"y": y, "state": state}
    drawn = {name: torch.randn(results[name].shape, generator=generator) for name in ("y", "state")}
    torch.autograd.backward(
        [results[name] for name in through],
        [drawn[name].to(device, results[name].dtype) for name in through],
    )
    gradients = {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    assert len(gradients) == len(leaves)
    return {"y": y.detach(), "state": state.detach(), **gradients}


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / (wanted.norm() + 1e-30))


def _assert_as_good_as_the_reference(
    inputs: dict[str, Tensor],
    lengths: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    **options: Any,
) -> None:
    """Error against float64 no worse than that of the reference in the same type, plus 1e-5."""
    rounded = {name: x.to(dtype).float() if name == "x" else x for name, x in inputs.items()}
    exact = _with_gradients(rounded, lengths, device, torch.float64, backend="reference", **options)
    same = _with_gradients(rounded, lengths, device, dtype, backend="reference", **options)
    ours = _with_gradients(rounded, lengths, device, dtype, **options)
    assert ours.keys() == exact.keys()
    for name, wanted in exact.items():
        assert ours[name].dtype == same[name].dtype, name
        assert not ours[name].isnan().any(), name
        # Two roundings of one sum to half precision differ by chance.
        chance = 1.0 if dtype == torch.float32 else 1.02
        assert _error(ours[name], wanted) <= chance * _error(same[name], wanted) + 1e-5, name


@pytest.mark.parametrize(
    ("width", "dtype"),
    [
        (2, torch.float32),
        (3, torch.float32),
        *((4, t) for t in (torch.float32, torch.float16, torch.bfloat16)),
    ],
)
def test_it_agrees_with_the_double_precision_reference(
    width: int, dtype: torch.dtype, device: torch.device
) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("the interpreter has no bfloat16")
    _assert_as_good_as_the_reference(_inputs(width=width), LENGTHS, device, dtype)


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("names", [("x", "weight"), ("x", "weight", "bias", "initial_state")])
@pytest.mark.parametrize("through", [("y",), ("y", "state")])
def test_it_agrees_with_and_without_what_may_be_left_out(
    activation: str | None, names: tuple[str, ...], through: tuple[str, ...], device: torch.device
) -> None:
    lengths = (3, 0, 1, 30)
    inputs = _inputs(lengths, channels=5, width=3, names=names)
    _assert_as_good_as_the_reference(
        inputs, lengths, device, torch.float32, activation=activation, through=through
    )


@pytest.mark.parametrize("channels", [1, 65, 260])
def test_it_agrees_at_every_tile_width(channels: int, device: torch.device) -> None:
    lengths = (5, 0, 8)
    _assert_as_good_as_the_reference(_inputs(lengths, channels), lengths, device, torch.float32)


def test_one_long_sequence_among_short_ones(device: torch.device) -> None:
    lengths = (*(3,) * 25, 300, *(3,) * 25)
    _assert_as_good_as_the_reference(_inputs(lengths, channels=3), lengths, device, torch.float32)


def test_gradients_through_the_state_alone_reach_the_last_inputs(device: torch.device) -> None:
    lengths = (5, 1, 0)
    ours = _with_gradients(_inputs(lengths), lengths, device, torch.float32, through=("state",))
    generator = torch.Generator().manual_seed(1)
    torch.randn(ours["y"].shape, generator=generator)
    upstream = torch.randn(ours["state"].shape, generator=generator).to(device)
    assert torch.equal(ours["dx"][2:5], upstream[0].T)
    assert not ours["dx"][:2].any()
    assert torch.equal(ours["dx"][5], upstream[1, :, -1])
    assert torch.equal(ours["dinitial_state"][1, :, 1:], upstream[1, :, :2])
    assert torch.equal(ours["dinitial_state"][2], upstream[2])
    assert not ours["dinitial_state"][0].any()
    assert not ours["dweight"].any()


def test_changing_one_sequence_changes_no_bit_of_the_others(device: torch.device) -> None:
    lengths = (2, 0, 30, 29, 40)
    inputs, offsets = _inputs(lengths), offsets_of(lengths, torch.device("cpu"))
    before = _with_gradients(inputs, lengths, device, torch.float32)
    part = slice(int(offsets[3]), int(offsets[4]))
    changed = {**inputs, "x": inputs["x"].clone()}
    changed["x"][part] = torch.nan
    after = _with_gradients(changed, lengths, device, torch.float32)
    others = torch.ones(sum(lengths), dtype=torch.bool, device=device)
    others[part] = False
    for name in ("y", "dx"):
        assert torch.equal(after[name][others], before[name][others])
        assert after[name][part].isnan().all()
    for name in ("state", "dinitial_state"):
        assert torch.equal(after[name][:3], before[name][:3])
        assert torch.equal(after[name][4:], before[name][4:])


def test_a_sequence_has_the_same_bits_wherever_it_stands(device: torch.device) -> None:
    lengths = (40, 0, 2, 31, 1)
    inputs, offsets = _inputs(lengths), offsets_of(lengths, torch.device("cpu"))
    parts = [slice(int(offsets[i]), int(offsets[i + 1])) for i in range(len(lengths))]
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(sum(lengths), 20, generator=generator)

    def run(order: list[int]) -> list[tuple[Tensor, ...]]:
        sizes = tuple(lengths[i] for i in order)
        x = torch.cat([inputs["x"][parts[i]] for i in order]).to(device).requires_grad_()
        initial = inputs["initial_state"][order].to(device).requires_grad_()
        y, state = causal_conv(
            x,
            inputs["weight"].to(device),
            inputs["bias"].to(device),
            offsets_of(sizes, device),
            initial_state=initial,
            return_state=True,
            backend="triton",
        )
        y.backward(torch.cat([upstream[parts[i]] for i in order]).to(device))
        assert x.grad is not None
        assert initial.grad is not None
        split = zip(y.detach().split(sizes), x.grad.split(sizes), state, initial.grad, strict=True)
        return [found for _, found in sorted(zip(order, split, strict=True), key=lambda pair: pair[0])]

    whole = run([0, 1, 2, 3, 4])
    for ours, wanted in zip(run([3, 1, 0, 4, 2]), whole, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))
    for i in range(len(lengths)):
        assert all(torch.equal(a, b) for a, b in zip(run([i])[0], whole[i], strict=True))


def test_every_run_gives_the_same_bits(device: torch.device) -> None:
    lengths = (100, 0, 20)  # two tiles
    first, second = (_with_gradients(_inputs(lengths), lengths, device, torch.float32) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_half_of_a_projection_and_an_expanded_gradient_need_no_copy(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {name: x.to(device) for name, x in _inputs(channels=8).items()}
    offsets = offsets_of(LENGTHS, device)
    wide = torch.cat([inputs["x"], inputs["x"] + 1], dim=1).requires_grad_()
    whole = inputs["x"].clone().requires_grad_()
    copied = []
    contiguous = Tensor.contiguous

    def watched(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if not self.is_contiguous() and self.dim() == 2 and len(self) == sum(LENGTHS):
            copied.append(self.shape)
        return contiguous(self, *args, **options)

    monkeypatch.setattr(Tensor, "contiguous", watched)
    results = []
    for x, leaf in ((wide[:, :8], wide), (whole, whole)):
        y = causal_conv(x, inputs["weight"], inputs["bias"], offsets, backend="triton")
        assert isinstance(y, Tensor)
        y.backward(torch.ones(8, device=device).expand(y.shape))
        assert leaf.grad is not None
        results.append((y, leaf.grad[:, :8]))
    assert copied == []
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    for other in (inputs["x"].T.contiguous().T, inputs["x"].repeat_interleave(2, dim=1)[:, ::2]):
        y = causal_conv(other, inputs["weight"], inputs["bias"], offsets, backend="triton")
        assert isinstance(y, Tensor)
        assert torch.equal(y, results[0][0])


def test_given_positions_are_taken_and_found_ones_are_right(device: torch.device) -> None:
    from recsys.kernels.conv import triton

    offsets = offsets_of(LENGTHS, device)
    wanted = torch.cat([torch.arange(n) for n in LENGTHS]).to(device)
    positions, sequences = triton.find_positions(offsets, sum(LENGTHS))
    assert torch.equal(positions.long(), wanted)
    numbers = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)).to(device)
    assert torch.equal(sequences.long(), numbers)

    inputs: dict[str, Any] = {name: x.to(device) for name, x in _inputs(names=NAMES[:3]).items()}
    found = causal_conv(**inputs, offsets=offsets, backend="triton")
    given = causal_conv(**inputs, offsets=offsets, positions=wanted, backend="triton")
    other = causal_conv(**inputs, offsets=offsets, positions=wanted.clamp(max=1), backend="triton")
    assert isinstance(found, Tensor)
    assert isinstance(given, Tensor)
    assert isinstance(other, Tensor)
    assert torch.equal(found, given)
    assert not torch.equal(found, other)


def test_events_beyond_the_last_sequence_are_zero_and_get_no_gradient(device: torch.device) -> None:
    drawn = _inputs((12,), names=NAMES[:3])
    inputs: dict[str, Any] = {name: x.to(device) for name, x in drawn.items()}
    x = inputs["x"].requires_grad_()
    y = causal_conv(**inputs, offsets=offsets_of((4, 0, 3), device), backend="triton")
    assert isinstance(y, Tensor)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert not y[7:].any()
    assert not x.grad[7:].any()
    assert x.grad[:7].any()


@pytest.mark.parametrize("sequences", [0, 3])
def test_a_batch_without_events_keeps_its_states(sequences: int, device: torch.device) -> None:
    lengths = (0,) * sequences
    inputs = _inputs(lengths)
    results = _with_gradients(inputs, lengths, device, torch.float32)
    assert results["y"].shape == (0, 20)
    assert torch.equal(results["state"].cpu(), inputs["initial_state"])
    assert not results["dweight"].any()
    assert not results["dbias"].any()


@pytest.mark.parametrize("cut", [0, 1, 2, 33])
def test_a_sequence_cut_anywhere_continues_from_its_state(cut: int, device: torch.device) -> None:
    inputs = {name: x.to(device) for name, x in _inputs((40,), channels=3).items()}

    def run(x: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        made = causal_conv(
            x,
            inputs["weight"],
            inputs["bias"],
            offsets_of((len(x),), device),
            initial_state=initial,
            return_state=True,
            backend="triton",
        )
        assert isinstance(made, tuple)
        return made

    whole, final = run(inputs["x"], inputs["initial_state"])
    first, state = run(inputs["x"][:cut], inputs["initial_state"])
    second, end = run(inputs["x"][cut:], state)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, final)


@pytest.mark.parametrize("stated", [True, False])
def test_the_operations_are_registered_soundly(stated: bool, device: torch.device) -> None:
    from recsys.kernels.conv import triton

    lengths = (3, 0, 4)
    inputs = {name: x.to(device).requires_grad_() for name, x in _inputs(lengths, channels=3).items()}
    offsets = offsets_of(lengths, device)
    positions, sequences = triton.find_positions(offsets, 7)
    torch.library.opcheck(triton.find_positions, (offsets, 7))
    initial = inputs["initial_state"] if stated else None
    arguments = (inputs["x"], inputs["weight"], inputs["bias"], offsets, positions, sequences, True, initial)
    torch.library.opcheck(triton.forward, (*arguments, stated))


def test_positions_that_do_not_fit_are_refused(device: torch.device) -> None:
    drawn = _inputs((4,), names=NAMES[:3])
    inputs: dict[str, Any] = {name: x.to(device) for name, x in drawn.items()}
    for wrong in (torch.zeros(3, dtype=torch.int32), torch.zeros(4)):
        with pytest.raises(ArgumentError, match=r"positions has shape .* want \(N,\) = \(4,\) int32"):
            causal_conv(**inputs, offsets=offsets_of((4,), device), positions=wrong.to(device))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_every_shipped_configuration_is_among_the_compile_cases(architecture: str) -> None:
    from recsys.kernels.conv import compile_cases

    with record_launches(architecture) as recorder:
        compile_cases.record_all()
    seen = []
    for launch in recorder.launches:
        constants = dict(launch.constants)
        seen.append((launch.num_warps, launch.num_stages, constants))

    def recorded(config: Config) -> bool:
        return any(
            (warps, stages) == (config.num_warps, config.num_stages)
            and all(constants.get(name) == value for name, value in config.blocks.items())
            for warps, stages, constants in seen
        )

    for kernel, when, config in read_configs("conv", architecture):
        assert recorded(config), (kernel, when)


def test_the_interpreter_runs_where_there_is_no_gpu(device: torch.device) -> None:
    assert interpreting() == (device.type == "cpu")
