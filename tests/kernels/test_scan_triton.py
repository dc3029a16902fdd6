"""The GPU kernels of the selective scan; without a GPU in Triton's interpreter, so that shapes are small."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.scan import ScanSchedule, schedule, selective_scan
from recsys.kernels.shared.launching import Config, choose_config
from tests.kernels.tensors import offsets_of

ROWS = ("u", "delta", "B", "C", "z")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
DTYPES = [
    torch.float32,
    torch.float16,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of more than 20 events are long, and cut into chunks of 16."""
    monkeypatch.setattr(schedule, "LONG", 20)
    monkeypatch.setattr(schedule, "CHUNK", 16)


def _inputs(
    lengths: tuple[int, ...],
    device: torch.device,
    channels: int = 5,
    states: int = 4,
    without: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    events = sum(lengths)
    made = {
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
    return {name: x.to(device) for name, x in made.items() if name not in without}


def _run(inputs: dict[str, Tensor], offsets: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    arguments: dict[str, Any] = {"return_state": True, **inputs, **options}
    result = selective_scan(offsets=offsets, **arguments)
    assert isinstance(result, tuple)
    return result


def _with_gradients(
    inputs: dict[str, Tensor],
    offsets: Tensor,
    through: tuple[str, ...] = ("y", "state"),
    upstream: dict[str, Tensor] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Results, and gradients of every argument through those named."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    y, state = _run(leaves, offsets, **options)
    results = {"y": y, "state": state}
    upstream = upstream or _upstream(results)
    loss = sum((results[name] * upstream[name].to(results[name])).sum() for name in through)
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = {
        f"d{name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }
    return {"y": y.detach(), "state": state.detach(), **gradients}


def _upstream(results: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(x.shape, generator=generator) for name, x in results.items()}


def _assert_as_exact_as_the_reference(
    inputs: dict[str, Tensor], offsets: Tensor, through: tuple[str, ...] = ("y", "state"), **options: Any
) -> None:
    """Compare with float64: no worse than the reference in the same types, plus 1e-5 of the norm."""
    double = {name: x.double() for name, x in inputs.items()}
    wanted = _with_gradients(double, offsets, through, **options)
    theirs = _with_gradients(inputs, offsets, through, backend="reference", **options)
    ours = _with_gradients(inputs, offsets, through, backend="triton", **options)
    assert ours.keys() == wanted.keys()
    for name, want in wanted.items():
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == want.shape, name
        error, allowed = ((x[name].double() - want).square().sum().sqrt() for x in (ours, theirs))
        assert error <= allowed + 1e-5 * want.square().sum().sqrt() + 1e-9, (name, float(error))


@pytest.mark.parametrize(
    ("channels", "states", "lengths"),
    [
        (5, 4, (0, 1, 2, 0, 17, 5, 0)),
        (32, 16, (3, 0, 18)),
        (1, 1, (3, 0, 1)),
        (33, 32, (1, 4)),
        (3, 20, (5,)),
        (2, 64, (2, 3)),
    ],
)
def test_results_and_gradients_agree_with_double_precision(
    channels: int, states: int, lengths: tuple[int, ...], device: torch.device
) -> None:
    inputs = _inputs(lengths, device, channels, states)
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("given", [(), *((name,) for name in OPTIONAL)])
def test_any_choice_of_optional_arguments(
    given: tuple[str, ...], softplus: bool, device: torch.device
) -> None:
    lengths = (3, 0, 5)
    without = tuple(name for name in OPTIONAL if name not in given)
    inputs = _inputs(lengths, device, channels=3, states=2, without=without)
    if not softplus:
        inputs.update({name: x.abs() for name, x in inputs.items() if name in ("delta", "delta_bias")})
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device), ("y",), delta_softplus=softplus)


def test_gradients_through_the_state_alone(device: torch.device) -> None:
    lengths = (3, 0, 9)
    inputs = _inputs(lengths, device)
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device), ("state",))


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("without", [(), ("initial_state", "z", "delta_bias")])
def test_long_sequences_are_scanned_in_chunks(without: tuple[str, ...], device: torch.device) -> None:
    lengths = (2, 21, 0, 48)
    inputs = _inputs(lengths, device, channels=3, states=3, without=without)
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))


def test_a_sequence_of_the_shipped_length_is_cut(device: torch.device) -> None:
    lengths = (schedule.LONG + 1,)
    inputs, offsets = _inputs(lengths, device, channels=2, states=2), offsets_of(lengths, device)
    assert ScanSchedule.from_lengths(lengths).chunks.shape == (3, 4)
    y, state = _run(inputs, offsets, backend="triton")
    wanted, final = _run({name: x.double() for name, x in inputs.items()}, offsets)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.double(), final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("chip", "channels", "states", "lengths"),
    [("sm_100", 32, 16, (7, 1, 17)), ("sm_80", 2, 3, (5,)), ("sm_80", 2, 33, (3,))],
)
def test_the_configurations_of_other_chips(
    chip: str,
    channels: int,
    states: int,
    lengths: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
) -> None:
    from recsys.kernels.scan import triton_launches

    monkeypatch.setattr(triton_launches, "architecture", lambda tensor: chip)
    inputs = _inputs(lengths, device, channels, states)
    inputs.update({name: inputs[name].half() for name in ROWS})
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))


@pytest.mark.parametrize("chip", ["sm_90", "sm_100"])
def test_training_in_half_precision_takes_sixteen_channels_to_a_program(
    chip: str, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    from recsys.kernels.scan import triton_launches

    taken: list[Config] = []

    def choose(*args: Any, **sizes: Any) -> Config:
        taken.append(choose_config(*args, **sizes))
        return taken[-1]

    monkeypatch.setattr(triton_launches, "architecture", lambda tensor: chip)
    monkeypatch.setattr(triton_launches, "choose_config", choose)
    lengths = (3, 0, 18, 1)
    inputs = _inputs(lengths, device, 32, 16, without=("initial_state",))
    inputs.update({name: inputs[name].half() for name in ROWS})
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device), ("y",))
    assert {config.blocks["BLOCK_D"] for config in taken if "HELD" in config.blocks} == {16}
    taken.clear()
    with_states = _inputs(lengths, device, 32, 16)
    with_states.update({name: with_states[name].half() for name in ROWS})
    _with_gradients(with_states, offsets_of(lengths, device), backend="triton")
    assert {config.blocks["BLOCK_D"] for config in taken if "HELD" in config.blocks} == {32}


@pytest.mark.slow
def test_one_huge_sequence_among_short_ones(device: torch.device) -> None:
    lengths = (*(3,) * 25, 300, *(3,) * 25)
    inputs = _inputs(lengths, device, channels=2, states=2)
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_projections_of_any_type_are_read_in_place(dtype: torch.dtype, device: torch.device) -> None:
    lengths = (6, 0, 19)
    inputs = _inputs(lengths, device, channels=4, states=4)
    wide = {name: torch.cat([inputs[name], inputs[name] + 1], 1).to(dtype) for name in ROWS}
    views = {name: x[:, : x.shape[1] // 2] for name, x in wide.items()}
    views["delta"] = views["delta"].T.contiguous().T
    saved = {name: x.clone() for name, x in wide.items()}
    variant, offsets = {**inputs, **views}, offsets_of(lengths, device)
    y, state = _run(variant, offsets, backend="triton")
    copied, again = _run({name: x.contiguous() for name, x in variant.items()}, offsets, backend="triton")
    assert torch.equal(y, copied)
    assert torch.equal(state, again)
    assert all(torch.equal(x, saved[name]) for name, x in wide.items())
    _assert_as_exact_as_the_reference(variant, offsets)


def test_parameters_and_rows_of_different_types_keep_their_own(device: torch.device) -> None:
    lengths = (4, 3)
    inputs = _inputs(lengths, device, channels=3, states=2)
    inputs.update({name: inputs[name].half() for name in ("u", "B", "D", "initial_state")})
    ours = _with_gradients(inputs, offsets_of(lengths, device), backend="triton")
    assert ours["y"].dtype == torch.float16
    assert ours["state"].dtype == torch.float32
    for name, x in inputs.items():
        assert ours[f"d{name}"].dtype == x.dtype, name


@pytest.fixture
def shared_exponentials(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every second event's exponentials on the multiply-add pipes; the list counts the kernels so built."""
    from recsys.kernels.scan import triton_launches

    used: list[int] = []

    def choose(*args: Any, **sizes: Any) -> Config:
        config = choose_config(*args, **sizes)
        if "FMA_EVERY" not in config.blocks:
            return config
        used.append(1)
        return Config(
            blocks={**config.blocks, "FMA_EVERY": 2},
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )

    monkeypatch.setattr(triton_launches, "choose_config", choose)
    return used


@pytest.mark.usefixtures("_short_chunks")
def test_a_share_of_the_exponentials_may_run_on_other_pipes(
    shared_exponentials: list[int], device: torch.device
) -> None:
    lengths = (5, 21)
    inputs = _inputs(lengths, device, channels=3, states=3)
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))
    assert len(shared_exponentials) == 4  # tasks and chunks, forward and backward


@pytest.mark.parametrize("shift", [-80.0, -15.0, 15.0, 40.0])
def test_extreme_step_sizes_neither_overflow_nor_lose_digits(shift: float, device: torch.device) -> None:
    lengths = (5,)
    inputs = _inputs(lengths, device, channels=3, states=2)
    inputs["delta_bias"] += shift
    inputs["z"] *= 30
    _assert_as_exact_as_the_reference(inputs, offsets_of(lengths, device))


def _part(inputs: dict[str, Tensor], offsets: Tensor, i: int) -> dict[str, Tensor]:
    rows = slice(int(offsets[i]), int(offsets[i + 1]))
    return {
        name: x[rows] if name in ROWS else x[i : i + 1] if name == "initial_state" else x
        for name, x in inputs.items()
    }


@pytest.mark.usefixtures("_short_chunks")
def test_a_sequence_has_the_same_bits_alone_and_anywhere_in_a_batch(device: torch.device) -> None:
    lengths = (17, 0, 2, 37, 5)
    inputs, offsets = _inputs(lengths, device, channels=3, states=3), offsets_of(lengths, device)
    upstream = _upstream({"y": inputs["u"], "state": inputs["initial_state"]})
    whole = _with_gradients(inputs, offsets, upstream=upstream, backend="triton")
    order = [3, 4, 0, 1, 2]
    parts = [_part(inputs, offsets, i) for i in order]
    moved = {
        name: torch.cat([part[name] for part in parts]) if name in (*ROWS, "initial_state") else x
        for name, x in inputs.items()
    }
    moved_offsets = offsets_of(tuple(lengths[i] for i in order), device)
    moved_upstream = {
        "y": torch.cat([upstream["y"][offsets[i] : offsets[i + 1]] for i in order]),
        "state": upstream["state"][order],
    }
    permuted = _with_gradients(moved, moved_offsets, upstream=moved_upstream, backend="triton")
    alone = _with_gradients(
        _part(inputs, offsets, 3),
        offsets_of((37,), device),
        upstream={"y": upstream["y"][offsets[3] : offsets[4]], "state": upstream["state"][3:4]},
        backend="triton",
    )
    for name in ("y", *(f"d{row}" for row in ROWS)):
        for place, i in enumerate(order):
            ours = permuted[name][moved_offsets[place] : moved_offsets[place + 1]]
            assert torch.equal(ours, whole[name][offsets[i] : offsets[i + 1]]), name
        assert torch.equal(alone[name], whole[name][offsets[3] : offsets[4]]), name
    for name in ("state", "dinitial_state"):
        assert torch.equal(permuted[name], whole[name][order])
        assert torch.equal(alone[name][0], whole[name][3])


@pytest.mark.usefixtures("_short_chunks")
def test_changing_one_sequence_changes_no_bit_of_the_others(device: torch.device) -> None:
    lengths = (3, 25, 0, 9)
    inputs, offsets = _inputs(lengths, device, channels=3, states=3), offsets_of(lengths, device)
    before = _with_gradients(inputs, offsets, backend="triton")
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ROWS:
        changed[name][3:28] = torch.nan
    changed["initial_state"][1] = torch.nan
    after = _with_gradients(changed, offsets, backend="triton")
    others = [*range(3), *range(28, 37)]
    for name in ("y", *(f"d{row}" for row in ROWS)):
        assert torch.equal(after[name][others], before[name][others]), name
        assert after[name][3:28].isnan().all(), name
    for name in ("state", "dinitial_state"):
        assert torch.equal(after[name][[0, 2, 3]], before[name][[0, 2, 3]]), name


@pytest.mark.usefixtures("_short_chunks")
def test_an_output_never_depends_on_later_events(device: torch.device) -> None:
    inputs, offsets = _inputs((40,), device, channels=3, states=3), offsets_of((40,), device)
    before, _ = _run(inputs, offsets, backend="triton")
    for event in (0, 3, 16, 39):
        changed = {name: x.clone() for name, x in inputs.items()}
        for name in ROWS:
            changed[name][event:] += 1
        after, _ = _run(changed, offsets, backend="triton")
        assert torch.equal(after[:event], before[:event])
        assert not torch.equal(after[event:], before[event:])


@pytest.mark.usefixtures("_short_chunks")
def test_every_run_gives_the_same_bits(device: torch.device) -> None:
    lengths = (21, 0, 3)
    inputs, offsets = _inputs(lengths, device, channels=33, states=3), offsets_of(lengths, device)
    first, second = (_with_gradients(inputs, offsets, backend="triton") for _ in range(2))
    for name, value in first.items():
        assert torch.equal(second[name], value), name


@pytest.mark.parametrize("cut", [0, 1, 16, 19])
def test_a_sequence_cut_anywhere_continues_from_its_state(cut: int, device: torch.device) -> None:
    inputs = _inputs((19,), device, channels=3, states=3)
    whole, final = _run(inputs, offsets_of((19,), device), backend="triton")
    early = {name: x[:cut] if name in ROWS else x for name, x in inputs.items()}
    first, state = _run(early, offsets_of((cut,), device), backend="triton")
    late = {name: x[cut:] if name in ROWS else x for name, x in inputs.items()}
    late["initial_state"] = state
    second, end = _run(late, offsets_of((19 - cut,), device), backend="triton")
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, final)


@pytest.mark.parametrize("sequences", [0, 3])
def test_a_batch_without_events_keeps_its_states(sequences: int, device: torch.device) -> None:
    lengths = (0,) * sequences
    inputs, offsets = _inputs(lengths, device), offsets_of(lengths, device)
    results = _with_gradients(inputs, offsets, backend="triton")
    assert results["y"].shape == (0, 5)
    assert torch.equal(results["state"], inputs["initial_state"])
    wanted = _upstream({"y": results["y"], "state": results["state"]})["state"].to(device)
    assert torch.equal(results["dinitial_state"], wanted)
    assert not any(results[f"d{name}"].any() for name in ("A", "D", "delta_bias"))


def test_the_operations_are_registered_soundly(device: torch.device) -> None:
    from recsys.kernels.scan import triton

    lengths = (2, 0, 3)
    inputs, offsets = _inputs(lengths, device, channels=3, states=2), offsets_of(lengths, device)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    made = ScanSchedule.from_lengths(lengths, device)
    work = (made.tasks, made.bounds, made.chunks, made.chains)
    torch.library.opcheck(triton.forward, (*leaves.values(), offsets, True, *work, True, True))


def test_a_schedule_given_is_used_and_one_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    lengths = (2, 0, 3)
    inputs, offsets = _inputs(lengths, device, channels=3, states=2), offsets_of(lengths, device)
    wanted, _ = _run(inputs, offsets, backend="triton")
    made = ScanSchedule.from_lengths(lengths, device)
    monkeypatch.setattr(ScanSchedule, "from_offsets", None)
    assert torch.equal(_run(inputs, offsets, schedule=made, backend="triton")[0], wanted)
    for other in ((2, 3), (2, 0, 4)):
        with pytest.raises(ArgumentError, match="schedule is of") as error:
            _run(inputs, offsets, schedule=ScanSchedule.from_lengths(other, device), backend="triton")
        assert "\n" not in str(error.value)


def test_rows_of_a_projection_are_loaded_four_states_at_once_where_they_lie_so() -> None:
    from recsys.kernels.scan.triton_launches import _alignment

    for dtype, size in ((torch.bfloat16, 8), (torch.float32, 16)):
        for rank in range(9):
            _, B, C = torch.zeros(3, rank + 32, dtype=dtype).split((rank, 16, 16), dim=1)
            wanted = size if rank % 4 == 0 else 0
            assert (_alignment(B), _alignment(C)) == (wanted, wanted)


def test_a_state_too_large_is_refused(device: torch.device) -> None:
    inputs = _inputs((2,), device, channels=1, states=65)
    with pytest.raises(ArgumentError, match="d_state is 65, backend 'triton' takes up to 64"):
        _run(inputs, offsets_of((2,), device), backend="triton")


def test_a_schedule_holds_every_event_once_whatever_the_lengths() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 30, 3000)
    lengths[[5, 70]] = 257, 1000
    made = ScanSchedule.from_lengths(lengths)
    tasks, bounds = made.tasks.numpy(), made.bounds.numpy()
    assert (bounds[0], bounds[-1]) == (0, len(tasks))
    assert (np.diff(bounds) > 0).all()
    assert len(bounds) - 1 <= schedule.MOST_GROUPS
    starts = np.concatenate([[0], np.cumsum(lengths)])
    seen = np.zeros(lengths.sum(), dtype=int)
    for row, events, sequence, slot in tasks:
        seen[row : row + events] += 1
        assert starts[sequence] <= row
        assert row + events <= starts[sequence + 1]
        if slot < 0:
            assert (row, events) == (starts[sequence], lengths[sequence])
        else:
            assert (row - starts[sequence]) % schedule.CHUNK == 0
            assert (made.chunks[slot].numpy() == (row, events, sequence, slot)).all()
    assert (seen == 1).all()
    assert sorted(tasks[tasks[:, 3] < 0, 2]) == [i for i in range(3000) if i not in (5, 70)]
    assert made.chains.tolist() == [[0, 3, 5, 0], [3, 8, 70, 0]]
    assert (made.sequences, made.events) == (3000, lengths.sum())


def test_a_schedule_shares_the_work_evenly_and_starts_with_the_fullest_group() -> None:
    lengths = np.random.default_rng(1).integers(1, 200, 5000)
    made = ScanSchedule.from_lengths(lengths)
    load = np.add.reduceat(made.tasks.numpy()[:, 1], made.bounds.numpy()[:-1])
    assert load.max() <= 1.25 * load.mean()
    assert (np.diff(load) <= 0).all()


def test_a_schedule_of_offsets_is_that_of_their_lengths() -> None:
    lengths = (3, 0, 300, 5)
    ours = ScanSchedule.from_offsets(offsets_of(lengths, torch.device("cpu")))
    wanted = ScanSchedule.from_lengths(lengths)
    for name in ("tasks", "bounds", "chunks", "chains"):
        part = getattr(ours, name)
        assert torch.equal(part, getattr(wanted, name))
        assert part.dtype == torch.int32
        assert part.storage_offset() % 4 == 0  # 16 bytes, as the kernels are told


def test_a_schedule_of_wrong_lengths_is_refused() -> None:
    for lengths in ([3, -1], [2**30, 2**30]):
        with pytest.raises(ArgumentError, match="negative or sum to"):
            ScanSchedule.from_lengths(lengths)
