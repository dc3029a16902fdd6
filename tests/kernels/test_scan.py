import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.scan import BACKENDS, selective_scan, selective_scan_step
from tests.kernels.tensors import assert_near, offsets_of

NEAR = {"relative": 1e-5, "floor": 1e-7}

LENGTHS = (0, 1, 2, 3, 7, 0, 64, 65, 300)
SHORTER = (0, 1, 2, 3, 7, 0, 64, 65, 130)
"""Still more than the forward kernel takes at once (256): what the reference takes grows with the square."""
REQUIRED = ("u", "delta", "A", "B", "C")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


def _inputs(
    lengths: tuple[int, ...] = LENGTHS, channels: int = 20, states: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    events = sum(lengths)
    return {
        "u": draw(events, channels),
        "delta": draw(events, channels),
        # From hardly any decay to almost none left after one event, as trained models have them.
        "A": -torch.exp(2 * draw(channels, states)),
        "B": draw(events, states),
        "C": draw(events, states),
        "D": draw(channels),
        "z": draw(events, channels),
        "delta_bias": draw(channels) - 2,
        "initial_state": draw(len(lengths), channels, states),
    }


def _run(inputs: dict[str, Tensor], offsets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    arguments: dict[str, Any] = {"return_state": True, **inputs, **options}
    result = selective_scan(offsets=offsets, **arguments)
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


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_case_worked_by_hand(backend: str) -> None:
    # exp(dt A) is a half at dt = 1 and a quarter at dt = 2.
    half = -torch.tensor(2.0).log()
    y, state = selective_scan(
        u=torch.tensor([[8.0], [1.0], [2.0]]),
        delta=torch.tensor([[0.0], [1.0], [0.0]]),
        A=torch.tensor([[0.0, half]]),
        B=torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 3.0]]),
        C=torch.tensor([[1.0, 1.0], [1.0, 10.0], [0.0, 1.0]]),
        D=torch.tensor([100.0]),
        delta_bias=torch.tensor([1.0]),
        offsets=offsets_of((2, 0, 1)),
        delta_softplus=False,
        initial_state=torch.tensor([[[0.0, 4.0]], [[5.0, 6.0]], [[0.0, 0.0]]]),
        return_state=True,
        backend=backend,
    )
    # States: (0, 4) -> (8, 10) -> (10, 2.5); unchanged; (0, 0) -> (0, 6).
    torch.testing.assert_close(y.flatten(), torch.tensor([818.0, 135.0, 206.0]))
    torch.testing.assert_close(
        state, torch.tensor([[[10.0, 2.5]], [[5.0, 6.0]], [[0.0, 6.0]]]), rtol=1e-6, atol=0
    )


def test_the_reference_is_the_sum_over_all_earlier_events() -> None:
    inputs = {name: x.double() for name, x in _inputs((40,), channels=3).items()}
    y, _ = _run(inputs, offsets_of((40,)))
    dt = (inputs["delta"] + inputs["delta_bias"]).exp().log1p()
    elapsed = dt.cumsum(0)
    for t in range(40):
        fade = torch.exp((elapsed[t] - elapsed[: t + 1])[..., None] * inputs["A"])
        inflow = (dt * inputs["u"])[: t + 1, :, None] * inputs["B"][: t + 1, None]
        state = (fade * inflow).sum(0) + torch.exp(elapsed[t][:, None] * inputs["A"]) * inputs[
            "initial_state"
        ][0]
        out = (state * inputs["C"][t]).sum(-1) + inputs["D"] * inputs["u"][t]
        torch.testing.assert_close(y[t], out * inputs["z"][t] * inputs["z"][t].sigmoid())


@pytest.mark.parametrize("softplus", [True, False])
def test_the_reference_has_true_gradients(softplus: bool) -> None:
    lengths = (0, 1, 4)
    inputs = _inputs(lengths, channels=2, states=2)
    if not softplus:
        inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs(), inputs["delta_bias"].abs()
    leaves = [x.double().requires_grad_() for x in inputs.values()]

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(inputs, values, strict=True))
        return _run(named, offsets_of(lengths), delta_softplus=softplus)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize(
    ("channels", "states", "lengths"),
    [
        *((c, s, SHORTER) for c in (1, 5, 64, 100) for s in (1, 4, 16, 32)),
        (5, 4, LENGTHS),
        (100, 16, LENGTHS),
    ],
)
def test_cpu_agrees_with_the_double_precision_reference(
    channels: int, states: int, lengths: tuple[int, ...]
) -> None:
    inputs, offsets = _inputs(lengths, channels, states), offsets_of(lengths)
    wanted = _with_gradients(inputs, offsets, torch.float64, ("y", "state"))
    assert_near(
        _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu"), wanted, **NEAR
    )


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("given", [(), *((name,) for name in OPTIONAL), OPTIONAL])
def test_cpu_agrees_with_any_choice_of_optional_arguments(given: tuple[str, ...], softplus: bool) -> None:
    lengths = (3, 0, 40)
    offsets = offsets_of(lengths)
    inputs = {name: x for name, x in _inputs(lengths).items() if name in REQUIRED + given}
    if not softplus:
        inputs.update({name: x.abs() for name, x in inputs.items() if name in ("delta", "delta_bias")})
    wanted = _with_gradients(inputs, offsets, torch.float64, ("y",), delta_softplus=softplus)
    ours = _with_gradients(inputs, offsets, torch.float32, ("y",), delta_softplus=softplus, backend="cpu")
    assert_near(ours, wanted, **NEAR)


def test_gradients_through_the_state_alone_agree_with_the_reference() -> None:
    lengths = (3, 0, 40)
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    runs = []
    for dtype in (torch.float32, torch.float64):
        leaves = {name: x.to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}
        _, state = _run(leaves, offsets)
        (state * torch.arange(state.numel()).view(state.shape)).sum().backward()
        reached = ("u", "delta", "A", "B", "delta_bias", "initial_state")
        grads = {name: leaves[name].grad for name in reached}
        assert all(grad is not None for grad in grads.values())
        runs.append({name: grad for name, grad in grads.items() if grad is not None})
        for name in ("C", "D", "z"):
            grad = leaves[name].grad
            assert grad is None or not grad.any()
    assert_near(runs[0], runs[1], **NEAR)


def test_one_huge_sequence_is_as_exact_as_short_ones() -> None:
    lengths = (4000, 0, 3)
    inputs, offsets = _inputs(lengths, channels=3), offsets_of(lengths)
    wanted = _with_gradients(inputs, offsets, torch.float64, ("y", "state"))
    ours = _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu")
    # The terms of dA cancel to a sixtieth of their size here: rounding them to float32 alone costs 1e-5.
    assert_near({"dA": ours.pop("dA")}, {"dA": wanted.pop("dA")}, relative=5e-5, floor=1e-7)
    assert_near(ours, wanted, **NEAR)


@pytest.mark.parametrize("shift", [-80.0, -15.0, 15.0, 40.0])
def test_extreme_step_sizes_neither_overflow_nor_lose_digits(shift: float) -> None:
    lengths = (5, 30)
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    inputs["delta_bias"] += shift
    inputs["z"] *= 30
    wanted = _with_gradients(inputs, offsets, torch.float64, ("y", "state"))
    assert_near(
        _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu"), wanted, **NEAR
    )


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch() -> None:
    lengths = (300, *LENGTHS, 600)
    inputs, offsets = _inputs(lengths, channels=100), offsets_of(lengths)
    whole = _with_gradients(inputs, offsets, torch.float32, ("y",), backend="cpu")
    upstream = torch.randn(whole["y"].shape, generator=torch.Generator().manual_seed(1))
    for i in range(len(lengths)):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        alone = {
            name: x[part] if len(x) == sum(lengths) else x[i : i + 1] if name == "initial_state" else x
            for name, x in inputs.items()
        }
        leaves = {name: x.clone().requires_grad_() for name, x in alone.items()}
        y, state = _run(leaves, offsets_of((lengths[i],)), backend="cpu")
        y.backward(upstream[part])
        assert torch.equal(y, whole["y"][part])
        assert torch.equal(state[0], whole["state"][i])
        for name in ("u", "delta", "B", "C", "z"):
            grad = leaves[name].grad
            assert grad is not None
            assert torch.equal(grad, whole[f"d{name}"][part]), name
        grad = leaves["initial_state"].grad
        assert grad is not None
        assert torch.equal(grad[0], whole["dinitial_state"][i])


def test_changing_one_sequence_changes_no_bit_of_the_others() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    before = _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu")
    part = slice(int(offsets[6]), int(offsets[7]))
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][part] += 1
    changed["initial_state"][6] += 1
    after = _with_gradients(changed, offsets, torch.float32, ("y", "state"), backend="cpu")
    others = torch.ones(sum(LENGTHS), dtype=torch.bool)
    others[part] = False
    for name in ("y", "du", "ddelta", "dB", "dC", "dz"):
        assert torch.equal(after[name][others], before[name][others])
        assert not torch.equal(after[name][part], before[name][part])
    for name in ("state", "dinitial_state"):
        rows = torch.arange(len(LENGTHS)) != 6
        assert torch.equal(after[name][rows], before[name][rows])


def test_every_run_and_every_thread_count_gives_the_same_bits() -> None:
    lengths = (900, *LENGTHS, *(40,) * 20)
    inputs, offsets = _inputs(lengths, channels=130, states=8), offsets_of(lengths)
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


@pytest.mark.parametrize("event", [0, 15, 16, 40])
def test_an_output_never_depends_on_later_events(event: int) -> None:
    inputs, offsets = _inputs((60,)), offsets_of((60,))
    before, _ = _run(inputs, offsets, backend="cpu")
    for name in ("u", "delta", "B", "C", "z"):
        changed = {**inputs, name: inputs[name].clone()}
        changed[name][event:] += 1
        after, _ = _run(changed, offsets, backend="cpu")
        assert torch.equal(after[:event], before[:event])
        assert not torch.equal(after[event:], before[event:])


@pytest.mark.parametrize("channels", [5, 20])
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
def test_a_nan_spoils_its_own_sequence_alone_and_from_its_event_on(name: str, channels: int) -> None:
    lengths = (20, 50, 5)
    inputs, offsets = _inputs(lengths, channels), offsets_of(lengths)
    clean = _with_gradients(inputs, offsets, torch.float32, ("y",), backend="cpu")
    spoiled = {**inputs, name: inputs[name].clone()}
    spoiled[name][40] = torch.nan
    ours = _with_gradients(spoiled, offsets, torch.float32, ("y",), backend="cpu")
    assert ours["y"][40].isnan().all()
    if name in ("u", "delta", "B"):  # C and z are read, never kept
        assert ours["y"][40:70].isnan().all()
        assert ours["state"][1].isnan().all()
    untouched = [*range(40), *range(70, 75)]
    assert torch.equal(ours["y"][untouched], clean["y"][untouched])
    for other in ("du", "ddelta", "dB", "dC", "dz"):
        for part in (slice(0, 20), slice(70, 75)):
            assert torch.equal(ours[other][part], clean[other][part])
    assert not torch.stack([ours[f"d{x}"].isnan().any() for x in REQUIRED]).logical_not().all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_steps_one_by_one_agree_with_the_whole(backend: str) -> None:
    lengths = (20, 20)
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    y, final = _run(inputs, offsets, backend=backend)
    state = inputs["initial_state"]
    shared: dict[str, Any] = {name: inputs[name] for name in ("A", "D", "delta_bias")}
    for t in range(20):
        event: dict[str, Any] = {x: inputs[x].view(2, 20, -1)[:, t] for x in ("u", "delta", "B", "C", "z")}
        out, state = selective_scan_step(state, **event, **shared)
        torch.testing.assert_close(out, y.view(2, 20, -1)[:, t], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


def test_a_step_leaves_the_given_state_alone() -> None:
    inputs: dict[str, Any] = dict(_inputs((1, 1)))
    state = inputs.pop("initial_state")
    saved = state.clone()
    selective_scan_step(state, **inputs)
    assert torch.equal(state, saved)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, 69, 70])
def test_a_sequence_cut_anywhere_continues_from_its_state(cut: int) -> None:
    inputs = _inputs((70,))
    whole, final = _run(inputs, offsets_of((70,)), backend="cpu")
    early = {name: x[:cut] if len(x) == 70 else x for name, x in inputs.items()}
    first, state = _run(early, offsets_of((cut,)), backend="cpu")
    late = {name: x[cut:] if len(x) == 70 else x for name, x in inputs.items()}
    second, end = _run({**late, "initial_state": state}, offsets_of((70 - cut,)), backend="cpu")
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, final)


def test_gradients_flow_back_through_the_handed_on_state() -> None:
    inputs = _inputs((50,))
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    early = {name: x[:21] if len(x) == 50 else x for name, x in leaves.items()}
    first, state = _run(early, offsets_of((21,)), backend="cpu")
    late = {name: x[21:] if len(x) == 50 else x for name, x in leaves.items()}
    second, _ = _run({**late, "initial_state": state}, offsets_of((29,)), backend="cpu")
    upstream = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    (torch.cat([first, second]) * upstream).sum().backward()
    wanted = _with_gradients(inputs, offsets_of((50,)), torch.float64, ("y",))
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert_near({name: leaf.grad}, {name: wanted[f"d{name}"]}, **NEAR)


def test_strided_inputs_give_the_same_bits_and_are_not_written() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    wanted = _with_gradients(inputs, offsets, torch.float32, ("y", "state"), backend="cpu")
    rows = {
        name: torch.cat([inputs[name], inputs[name] + 1], dim=1) for name in ("u", "delta", "B", "C", "z")
    }
    strided = {name: x[:, : x.shape[1] // 2] for name, x in rows.items()}
    columns = {name: inputs[name].T.contiguous().T for name in ("u", "delta", "A", "B", "C", "z")}
    others = {
        "initial_state": inputs["initial_state"].transpose(1, 2).contiguous().transpose(1, 2),
        "D": torch.stack([inputs["D"]] * 2, dim=1)[:, 0],
        "delta_bias": torch.stack([inputs["delta_bias"]] * 2, dim=1)[:, 0],
    }
    sparse = {name: inputs[name].repeat_interleave(2, dim=1)[:, ::2] for name in columns}
    for variant in ({**inputs, **strided}, {**inputs, **columns, **others}, {**inputs, **sparse}):
        saved = {name: x.clone() for name, x in variant.items()}
        ours = _run(variant, offsets, backend="cpu")
        assert torch.equal(ours[0], wanted["y"])
        assert torch.equal(ours[1], wanted["state"])
        assert all(torch.equal(x, saved[name]) for name, x in variant.items())
    leaf = rows["u"].clone().requires_grad_()
    y, _ = _run({**inputs, "u": leaf[:, :20]}, offsets, backend="cpu")
    # The gradient of a sum arrives as an expanded scalar.
    y.sum().backward()
    single = inputs["u"].clone().requires_grad_()
    _run({**inputs, "u": single}, offsets, backend="cpu")[0].backward(torch.ones(sum(LENGTHS), 20))
    assert leaf.grad is not None
    assert single.grad is not None
    assert torch.equal(leaf.grad[:, :20], single.grad)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("sequences", [0, 3])
def test_a_batch_without_events_keeps_its_states(backend: str, sequences: int) -> None:
    lengths = (0,) * sequences
    inputs, offsets = _inputs(lengths), offsets_of(lengths)
    dtype = torch.float64 if backend == "reference" else torch.float32
    results = _with_gradients(inputs, offsets, dtype, ("y", "state"), backend=backend)
    assert results["y"].shape == (0, 20)
    assert torch.equal(results["state"], inputs["initial_state"].to(dtype))
    upstream = torch.Generator().manual_seed(1)
    torch.randn(0, 20, generator=upstream)
    wanted = torch.randn(sequences, 20, 4, generator=upstream).to(dtype)
    assert torch.equal(results["dinitial_state"], wanted)
    assert not any(results[f"d{name}"].any() for name in ("A", "D", "delta_bias"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single_and_cast_back(dtype: torch.dtype) -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    halves = {name: x if name == "A" else x.to(dtype) for name, x in inputs.items()}
    y, state = _run(halves, offsets)
    wanted, _ = _run({name: x.float() for name, x in halves.items()}, offsets, backend="cpu")
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    assert torch.equal(y, wanted.to(dtype))


def test_without_return_state_only_y_comes_back() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    u, delta, A, B, C = (inputs[name] for name in REQUIRED)
    y = selective_scan(u, delta, A, B, C, offsets=offsets.long())
    assert isinstance(y, Tensor)
    assert y.shape == inputs["u"].shape


def test_softplus_is_torchs_over_its_whole_range() -> None:
    delta = torch.linspace(-100, 100, 4001)[:, None]
    ones = torch.ones(4001, 1)
    state = selective_scan(
        ones,
        delta,
        torch.zeros(1, 1),
        ones,
        ones,
        offsets=torch.arange(4002, dtype=torch.int32),
        backend="cpu",
    )
    assert isinstance(state, Tensor)
    wanted = F.softplus(delta.double())
    # Far below zero, the rounding of delta log2(e) weighs more than the polynomials' error.
    torch.testing.assert_close(state.double(), wanted, rtol=1e-5, atol=1e-37)
    torch.testing.assert_close(state[1800:].double(), wanted[1800:], rtol=1e-6, atol=0)


def test_the_device_and_dtype_choose_the_backend() -> None:
    assert BACKENDS.choose(None, torch.zeros(1)) == "cpu"
    assert BACKENDS.choose(None, torch.zeros(1, dtype=torch.bfloat16)) == "cpu"
    assert BACKENDS.choose(None, torch.zeros(1, dtype=torch.float64)) == "reference"
    assert BACKENDS.choose("reference", torch.zeros(1)) == "reference"


def test_the_compiled_operation_is_registered_soundly() -> None:
    from recsys.kernels.scan import cpu

    lengths = (3, 0, 20)
    inputs, offsets = _inputs(lengths, channels=3), offsets_of(lengths)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    arguments = (*list(leaves.values())[:8], offsets, True, leaves["initial_state"], True, True)
    torch.library.opcheck(cpu.forward.operator, arguments)


GOOD = _inputs((2, 3), channels=4, states=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"u": torch.zeros(5)}, "u has shape (5,), want (N, d_inner)"),
        ({"u": torch.zeros(5, 4, dtype=torch.int64)}, "u has dtype torch.int64"),
        ({"A": torch.zeros(2)}, "A has shape (2,), want (d_inner, d_state)"),
        ({"A": torch.zeros(3, 2)}, "A has shape (3, 2), want (d_inner, d_state) = (4, 2)"),
        (
            {"delta": torch.zeros(4, 4)},
            "delta has shape (4, 4), want (N, d_inner) = (5, 4) to go with u (5, 4)",
        ),
        ({"B": torch.zeros(5, 3)}, "B has shape (5, 3), want (N, d_state) = (5, 2)"),
        ({"C": torch.zeros(2, 5)}, "C has shape (2, 5), want (N, d_state) = (5, 2)"),
        ({"D": torch.zeros(5)}, "D has shape (5,), want (d_inner,) = (4,)"),
        ({"z": torch.zeros(5, 3)}, "z has shape (5, 3), want (N, d_inner) = (5, 4)"),
        ({"delta_bias": torch.zeros(1)}, "delta_bias has shape (1,), want (d_inner,) = (4,)"),
        ({"initial_state": torch.zeros(1, 4, 2)}, "initial_state has shape (1, 4, 2)"),
        ({"initial_state": torch.zeros(2, 4, 2).long()}, "initial_state has dtype torch.int64"),
        ({"B": torch.zeros(5, 2, device="meta")}, "B is on meta, want cpu like u"),
        ({"backend": "cuda"}, "backend is 'cuda', use one of"),
        ({"u": torch.zeros(5, 4, dtype=torch.float64), "backend": "cpu"}, "not torch.float64"),
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
        selective_scan(**arguments)
    assert "\n" not in str(error.value)


def test_a_step_names_a_wrong_state() -> None:
    inputs: dict[str, Any] = {name: x for name, x in GOOD.items() if name != "initial_state"}
    with pytest.raises(ArgumentError, match="state has shape"):
        selective_scan_step(torch.zeros(2, 4, 2), **inputs)


def test_torch_compile_takes_the_whole_call_into_one_graph() -> None:
    lengths = (3, 0, 20)
    inputs, offsets = _inputs(lengths), offsets_of(lengths)

    def run(u: Tensor, backend: str | None = None) -> Tensor:
        return _run({**inputs, "u": u}, offsets, backend=backend)[0]

    graph = torch.compile(run, backend="aot_eager", fullgraph=True)
    leaves = [inputs["u"].clone().requires_grad_() for _ in range(2)]
    for function, leaf in zip((run, graph), leaves, strict=True):
        y = function(leaf)
        y.backward(torch.ones_like(y))
    assert torch.equal(graph(leaves[1]), run(leaves[0]))
    assert leaves[0].grad is not None
    assert leaves[1].grad is not None
    assert torch.equal(leaves[1].grad, leaves[0].grad)
